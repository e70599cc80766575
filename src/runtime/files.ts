import { constants, createReadStream, existsSync, watch } from 'node:fs';
import { lstat, open, readdir, readlink, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BalancerError } from '../model/errors.js';

/** The file system as haports needs it, so that tests can bring their own. */
export interface Files {
  /**
   * The whole file as UTF-8. Rejects with the system's error (`ENOENT`, `EACCES`, `EISDIR` ...), and with
   * `LB_CONFIG_UNREADABLE` where it is a pipe, a device or a socket, or larger than 16 MiB: callers must not
   * wait forever.
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

/** How far an append came. `written` counts bytes also when it then failed. */
export interface AppendOutcome {
  readonly written: number;
  readonly error?: unknown;
}

/** A file open for appending; the caller owns it and closes it. */
export interface AppendFile {
  /** Appends as much as it can. Never rejects: a full disk is an outcome. */
  append(data: Uint8Array): Promise<AppendOutcome>;
  /** Never rejects. */
  close(): Promise<void>;
}

export interface AppendFiles {
  /** Opens with O_APPEND, creating the file with mode 0640 where it is missing. Rejects with the system's error. */
  open(path: string): Promise<AppendFile>;
}

export const nodeAppendFiles: AppendFiles = {
  async open(path) {
    const handle = await open(path, 'a', 0o640);
    return {
      async append(data) {
        let written = 0;
        try {
          while (written < data.length) {
            written += (await handle.write(data, written, data.length - written)).bytesWritten;
          }
          return { written };
        } catch (error) {
          return { written, error };
        }
      },
      async close() {
        await handle.close().catch(() => undefined);
      },
    };
  },
};

/** What is at a path; a link is not followed. */
export interface FileIdentity {
  readonly isSocket: boolean;
  /** Permission bits. */
  readonly mode: number;
  /** Device and inode: differs when another file has taken the path. */
  readonly id: string;
}

/** What it takes to keep a Unix socket at a path, so that tests can bring their own. */
export interface SocketFiles {
  /** Undefined: nothing is there. Rejects with the system's error otherwise. */
  identify(path: string): Promise<FileIdentity | undefined>;
  /** Replaces what is at `to` in one step. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
}

export const systemSocketFiles: SocketFiles = {
  async identify(path) {
    try {
      const stats = await lstat(path, { bigint: true });
      return {
        isSocket: stats.isSocket(),
        mode: Number(stats.mode & 0o7777n),
        id: `${stats.dev}:${stats.ino}`,
      };
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  },
  rename: (from, to) => rename(from, to),
  remove: (path) => unlink(path),
};

/**
 * The absolute path of a file of this installation, by its path from the folder of package.json: `dist/worker.js`. The
 * build puts modules into files that stand elsewhere than their sources, so none of them can tell by its own place.
 *
 * @throws Error where no folder above has a package.json
 */
export function installedFile(path: string): string {
  const here = fileURLToPath(import.meta.url);
  let folder = dirname(here);
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new Error(`No folder above "${here}" has a package.json: install haports whole`);
    folder = parent;
  }
  return join(folder, path);
}
