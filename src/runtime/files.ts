import { readFile } from 'node:fs/promises';

/** The file system as haports needs it, so that tests can bring their own. */
export interface Files {
  /** The whole file as UTF-8. Rejects with the system's error (`ENOENT`, `EACCES`, `EISDIR` ...). */
  readText(path: string): Promise<string>;
}

export const systemFiles: Files = {
  readText: (path) => readFile(path, 'utf8'),
};
