import type { AppendFile, AppendFiles, AppendOutcome } from '../../../src/runtime/files.js';

/** Files in memory, by path, with faults to switch on. */
export class FakeAppendFiles implements AppendFiles {
  /** What stands in each file; a rename is `contents.delete`. */
  readonly contents = new Map<string, string>();
  /** How many more bytes fit; then ENOSPC. */
  roomBytes = Number.POSITIVE_INFINITY;
  /** Set: every append fails so, taking nothing. */
  appendErrorCode: string | undefined;
  openErrorCode: string | undefined;
  opens = 0;
  closes = 0;
  /** Set: appends wait for it. */
  gate: Promise<void> | undefined;

  open(path: string): Promise<AppendFile> {
    if (this.openErrorCode !== undefined) return Promise.reject(systemError(this.openErrorCode));
    this.opens++;
    if (!this.contents.has(path)) this.contents.set(path, '');
    return Promise.resolve({
      append: async (data: Uint8Array): Promise<AppendOutcome> => {
        await this.gate;
        if (this.appendErrorCode !== undefined) {
          const error = systemError(this.appendErrorCode);
          if (this.appendErrorCode === 'EBADF') this.appendErrorCode = undefined;
          return { written: 0, error };
        }
        const written = Math.min(data.length, this.roomBytes);
        this.roomBytes -= written;
        this.contents.set(
          path,
          (this.contents.get(path) ?? '') + Buffer.from(data.subarray(0, written)).toString(),
        );
        return written === data.length ? { written } : { written, error: systemError('ENOSPC') };
      },
      close: () => {
        this.closes++;
        return Promise.resolve();
      },
    });
  }
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made up for this test`), { code });
}
