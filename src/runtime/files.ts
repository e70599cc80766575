import { createReadStream, watch } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';

/** The file system as haports needs it, so that tests can bring their own. */
export interface Files {
  /** The whole file as UTF-8. Rejects with the system's error (`ENOENT`, `EACCES`, `EISDIR` ...). */
  readText(path: string): Promise<string>;
}

export const systemFiles: Files = {
  readText: (path) => readFile(path, 'utf8'),
};

/** Large enough that few are needed, small enough that nothing waits for one. */
const CHUNK_BYTES = 262_144;

/** A file piece by piece, whatever its length. Nothing is opened before the first is asked for; rejects as readText. */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { highWaterMark: CHUNK_BYTES }) as AsyncIterable<Uint8Array>;
}

/** How changes of files are noticed, so that tests can bring their own. */
export interface FileChanges {
  /** Another text whenever the file is another or has other content. Rejects with the system's error. */
  signature(path: string): Promise<string>;
  /** Calls with the name of what changed in a folder, where the system says it, until the returned function is called. */
  watchFolder(path: string, listener: (name: string | undefined) => void): () => void;
}

export const systemFileChanges: FileChanges = {
  async signature(path) {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true });
    return `${dev} ${ino} ${size} ${mtimeNs}`;
  },
  watchFolder(path, listener) {
    try {
      const watcher = watch(path, { persistent: false }, (_event, name) => listener(name ?? undefined));
      // A folder that cannot be watched any longer is polled all the same.
      watcher.on('error', () => undefined);
      return () => watcher.close();
    } catch {
      return () => undefined;
    }
  },
};
