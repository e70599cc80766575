import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A configuration in a folder of its own, readable by everybody. Whoever writes it removes it. */
export class ConfigFile {
  readonly folder: string;
  readonly path: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.path = join(folder, 'config.json');
  }

  /** Text is written as it stands, so that it may be broken. */
  static async write(content: string | object): Promise<ConfigFile> {
    const file = new ConfigFile(await mkdtemp(join(tmpdir(), 'haports-test-')));
    const text = typeof content === 'string' ? content : JSON.stringify(content, undefined, 2);
    await writeFile(file.path, text);
    await chmod(file.folder, 0o755);
    return file;
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}
