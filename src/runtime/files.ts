import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';

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
