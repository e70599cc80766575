import { errorCode, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { AppendFile, AppendFiles } from '../runtime/files.js';
import type { Logger } from '../runtime/logger.js';

export interface LineWriterDependencies {
  readonly files: AppendFiles;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Lines that every file needs at its head; also written again after such lines were lost. */
  readonly header: () => readonly string[];
  /** The line that stands where `lines` lines are missing. */
  readonly lostLine: (lines: number) => string;
}

export interface LineWriterOptions {
  readonly path: string;
  /** What may wait in memory. Kept lines may use as much again. @default 4194304 */
  readonly bufferBytes?: number;
  /** How long a line waits for company, and the pause after a failed write. @default 1000 */
  readonly flushIntervalMs?: number;
}

export interface LineWriterStats {
  readonly linesWritten: number;
  readonly linesLost: number;
  readonly writeErrors: number;
}

/** `kept`: others cannot be read without it; dropped last. */
export type LineKind = 'ordinary' | 'kept';

interface Batch {
  readonly data: Buffer;
  readonly lines: number;
  offset: number;
}

/** As many bytes as are worth a write at once. */
const FLUSH_BYTES = 65_536;

/**
 * Appends lines to a file, many at a time. What cannot be written waits, up to a bound, then is lost and counted:
 * memory stays bounded and callers never wait. A failed write is logged once until one succeeds, and taken up at
 * the byte where it stopped, so a disk that was full for a while leaves no torn line.
 */
export class LineWriter {
  readonly #deps: LineWriterDependencies;
  readonly #path: string;
  readonly #bufferBytes: number;
  readonly #flushIntervalMs: number;
  #file: AppendFile | undefined;
  #waiting: string[] = [];
  #waitingBytes = 0;
  #batch: Batch | undefined;
  #cancelTimer: (() => void) | undefined;
  /** Everything that touches the file, one after another. Never rejects. */
  #work: Promise<void> = Promise.resolve();
  #pumpQueued = false;
  #failing = false;
  #stopped = false;
  #unreportedLost = 0;
  #keptLost = false;
  #linesWritten = 0;
  #linesLost = 0;
  #writeErrors = 0;

  constructor(deps: LineWriterDependencies, options: LineWriterOptions) {
    this.#deps = deps;
    this.#path = options.path;
    this.#bufferBytes = options.bufferBytes ?? 4_194_304;
    this.#flushIntervalMs = options.flushIntervalMs ?? 1000;
  }

  get stats(): LineWriterStats {
    return { linesWritten: this.#linesWritten, linesLost: this.#linesLost, writeErrors: this.#writeErrors };
  }

  /** Opens the file. Rejects with the system's error. */
  async start(): Promise<void> {
    this.#file = await this.#deps.files.open(this.#path);
  }

  /** Takes a line, its line feed included, or counts it as lost. */
  write(line: string, kind: LineKind): void {
    const limit = kind === 'kept' ? this.#bufferBytes * 2 : this.#bufferBytes;
    const held = this.#heldBytes();
    if (this.#stopped || (held > 0 && held + line.length > limit)) {
      this.#lose(1);
      if (kind === 'kept') this.#keptLost = true;
      return;
    }
    this.#reportLoss();
    this.#hold(line);
    if (this.#failing) return;
    if (this.#waitingBytes >= FLUSH_BYTES) this.#queuePump();
    else
      this.#cancelTimer ??= this.#deps.clock.setTimer(this.#flushIntervalMs, () => this.#due(), {
        unref: true,
      });
  }

  /** Resolves when all that was taken so far has been written, or a write has failed. */
  flush(): Promise<void> {
    this.#queuePump();
    return this.#work;
  }

  /**
   * Writes what waits to the old file, then goes on in a newly opened one (after a rename by logrotate), header
   * first. Never rejects: if it cannot be opened, the old one stays and the failure is logged.
   */
  reopen(): Promise<void> {
    this.#work = this.#work.then(() => this.#swapFile());
    return this.#work;
  }

  /** Writes what it can and closes. What cannot be written is lost and counted. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopped) return this.#work;
    this.#stopped = true;
    await this.flush();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const batch = this.#batch;
    const torn = batch === undefined ? 0 : remainingLines(batch);
    this.#linesWritten += (batch?.lines ?? 0) - torn;
    this.#lose(this.#waiting.length + torn);
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#batch = undefined;
    await this.#file?.close();
    this.#file = undefined;
    if (this.#linesLost > 0) {
      const fields = { event: 'flow-log-lost', file: this.#path, lines: this.#linesLost };
      this.#deps.logger.warn(fields, `Lost ${this.#linesLost} lines of "${this.#path}"`);
    }
  }

  #heldBytes(): number {
    const batch = this.#batch;
    return this.#waitingBytes + (batch === undefined ? 0 : batch.data.length - batch.offset);
  }

  #hold(line: string): void {
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
  }

  #lose(lines: number): void {
    this.#linesLost += lines;
    this.#unreportedLost += lines;
  }

  #reportLoss(): void {
    if (this.#unreportedLost > 0) {
      this.#hold(this.#deps.lostLine(this.#unreportedLost));
      this.#unreportedLost = 0;
    }
    if (this.#keptLost) {
      this.#keptLost = false;
      for (const line of this.#deps.header()) this.#hold(line);
    }
  }

  #due(): void {
    this.#cancelTimer = undefined;
    this.#queuePump();
  }

  #queuePump(): void {
    if (this.#pumpQueued) return;
    this.#pumpQueued = true;
    this.#work = this.#work.then(() => {
      this.#pumpQueued = false;
      return this.#pump();
    });
  }

  async #pump(): Promise<void> {
    for (;;) {
      this.#batch ??= this.#takeBatch();
      const batch = this.#batch;
      if (batch === undefined || this.#file === undefined) return;
      const { written, error } = await this.#file.append(batch.data.subarray(batch.offset));
      batch.offset += written;
      if (error !== undefined) {
        await this.#failed(error);
        return;
      }
      this.#linesWritten += batch.lines;
      this.#batch = undefined;
      this.#succeeded();
    }
  }

  #takeBatch(): Batch | undefined {
    const lines = this.#waiting;
    if (lines.length === 0) return undefined;
    this.#waiting = [];
    this.#waitingBytes = 0;
    return { data: Buffer.from(lines.join('')), lines: lines.length, offset: 0 };
  }

  async #failed(error: unknown): Promise<void> {
    this.#writeErrors++;
    if (!this.#failing) {
      const fields = { event: 'flow-log-failed', file: this.#path, code: errorCode(error) };
      this.#deps.logger.error(fields, `Cannot write "${this.#path}": ${errorMessage(error)}`);
    }
    this.#failing = true;
    if (errorCode(error) === 'EBADF') await this.#openAgain();
    if (this.#stopped) return;
    this.#cancelTimer?.();
    this.#cancelTimer = this.#deps.clock.setTimer(this.#flushIntervalMs, () => this.#due(), { unref: true });
  }

  #succeeded(): void {
    if (!this.#failing) return;
    this.#failing = false;
    const fields = { event: 'flow-log-recovered', file: this.#path, linesLost: this.#linesLost };
    this.#deps.logger.info(fields, `Writing "${this.#path}" again, ${this.#linesLost} lines lost so far`);
  }

  async #swapFile(): Promise<void> {
    if (this.#stopped) return;
    await this.#pump();
    if (!(await this.#openAgain())) return;
    const torn = this.#batch;
    if (torn !== undefined && torn.offset > 0) {
      // The rest of a half-written line is no line in another file.
      const left = remainingLines(torn);
      const end =
        torn.data[torn.offset - 1] === LINE_FEED
          ? torn.offset
          : torn.data.indexOf(LINE_FEED, torn.offset) + 1;
      const whole = end === torn.offset ? left : left - 1;
      this.#lose(left - whole);
      this.#linesWritten += torn.lines - left;
      this.#batch = { data: torn.data.subarray(end), lines: whole, offset: 0 };
    }
    const older = this.#waiting;
    this.#waiting = [...this.#deps.header(), ...older];
    this.#waitingBytes = this.#waiting.reduce((sum, line) => sum + line.length, 0);
    await this.#pump();
  }

  /** Whether a new file took the place of the old. */
  async #openAgain(): Promise<boolean> {
    try {
      const file = await this.#deps.files.open(this.#path);
      await this.#file?.close();
      this.#file = file;
      return true;
    } catch (error) {
      const fields = { event: 'flow-log-failed', file: this.#path, code: errorCode(error) };
      this.#deps.logger.error(fields, `Cannot open "${this.#path}" again: ${errorMessage(error)}`);
      return false;
    }
  }
}

const LINE_FEED = 0x0a;

/** Lines of a batch that are not wholly written; the torn one counts. */
function remainingLines(batch: Batch): number {
  let lines = 0;
  let from = batch.data.indexOf(LINE_FEED, batch.offset);
  while (from !== -1) {
    lines++;
    from = batch.data.indexOf(LINE_FEED, from + 1);
  }
  return lines;
}
