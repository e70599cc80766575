import { constants, createReadStream, watch } from 'node:fs';
import { open, readdir, readlink, stat } from 'node:fs/promises';
import { BalancerError } from '../model/errors.js';

/** The file system as haports needs it, so that tests can bring their own. */
export interface Files {
  /**
   * The whole file as UTF-8. Rejects with the system's error (`ENOENT`, `EACCES`, `EISDIR` ...), and with
   * `LB_CONFIG_UNREADABLE` where it is a pipe, a device or a socket, or larger than 16 MiB: whoever waits for it must
   * not wait for ever.
   */
  readText(path: string): Promise<string>;
}

/** Many times what 65,535 backends take; no configuration, certificate or token is larger. */
const MOST_TEXT_BYTES = 16 * 1024 * 1024;

export const systemFiles: Files = { readText };

async function readText(path: string): Promise<string> {
  // A pipe without a writer is opened at once too.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await file.stat();
    // Of a folder the system says so itself.
    if (!found.isFile() && !found.isDirectory()) {
      throw unreadable('It is a pipe, a device or a socket, must be a regular file');
    }
    const pieces: Buffer[] = [];
    let size = 0;
    // A file may grow meanwhile, and those of /proc tell no size.
    const stream = file.createReadStream({ end: MOST_TEXT_BYTES, autoClose: false }) as AsyncIterable<Buffer>;
    for await (const piece of stream) {
      pieces.push(piece);
      size += piece.length;
    }
    if (size > MOST_TEXT_BYTES) throw unreadable('It is larger than 16 MiB, must be smaller');
    return Buffer.concat(pieces).toString('utf8');
  } finally {
    await file.close();
  }
}

function unreadable(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_CONFIG_UNREADABLE', source: 'system' });
}

/** Large enough that few are needed, small enough that nothing waits for one. */
const CHUNK_BYTES = 262_144;

/** A file piece by piece, whatever its length. Nothing is opened before the first is asked for; rejects as readText. */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { highWaterMark: CHUNK_BYTES }) as AsyncIterable<Uint8Array>;
}

/** By name: where the symbolic links in a folder lead. Links that go away meanwhile are left out. Rejects as readText. */
export async function readLinks(folder: string): Promise<ReadonlyMap<string, string>> {
  const targets = new Map<string, string>();
  for (const name of await readdir(folder)) {
    const target = await readlink(`${folder}/${name}`).catch(() => undefined);
    if (target !== undefined) targets.set(name, target);
  }
  return targets;
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
