import { lstat, rename, unlink } from 'node:fs/promises';

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
