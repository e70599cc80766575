import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** A module of the page that imports nothing from the browser. It is plain JavaScript: the caller says its shape. */
export async function pageModule<T>(name: string): Promise<T> {
  return (await import(pathToFileURL(join('src/admin/page', name)).href)) as T;
}
