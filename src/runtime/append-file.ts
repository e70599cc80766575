import { open } from 'node:fs/promises';

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
