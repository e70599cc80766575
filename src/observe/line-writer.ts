import { errorCode } from '../model/errors.js';
import type { ControlEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { AppendFile, AppendFiles } from '../runtime/files.js';
import { SerialQueue } from '../runtime/queue.js';

export interface LineWriterDependencies {
  readonly files: AppendFiles;
  readonly clock: Clock;
  readonly onEvent: (event: ControlEvent) => void;
}

/** Lines that the writer adds by itself. */
export interface LineFormat {
  /** Lines that every file needs at its head; also written again after such lines were lost. */
  readonly header: () => readonly string[];
  /** The line that stands where `lines` lines are missing. */
  readonly lostLine: (lines: number) => string;
}

export interface LineWriterStats {
  readonly linesWritten: number;
  readonly linesLost: number;
  readonly writeErrors: number;
}

/** `kept`: other lines cannot be read without it; dropped last. */
export type LineKind = 'ordinary' | 'kept';

/** As many bytes as are worth a write at once. */
const FLUSH_BYTES = 65_536;

/** How long a line waits for company, and the pause after a failed write. */
const FLUSH_INTERVAL_MS = 1000;

/**
 * Appends lines to a file, many at a time. What cannot be written waits, up to a bound, then is lost and counted:
 * memory stays bounded and callers never wait. A failed write is reported once until one succeeds, and resumed at
 * the byte where it stopped, so a disk that was full for a while leaves no torn line.
 */
export class LineWriter {
  readonly #deps: LineWriterDependencies;
  readonly #format: LineFormat;
  readonly #path: string;
  readonly #bufferBytes: number;
  readonly #stats = { linesWritten: 0, linesLost: 0, writeErrors: 0 };
  #file: AppendFile | undefined;
  #waiting: Buffer[] = [];
  /** Whether the beginning of the first one is in the file already. */
  #isTorn = false;
  /** Of what waits and what is being written. */
  #heldBytes = 0;
  #cancelTimer: (() => void) | undefined;
  /** Everything that touches the file, one after another. */
  readonly #work = new SerialQueue();
  #isFlushQueued = false;
  #isFailing = false;
  #isStopped = false;
  #unreportedLost = 0;
  #isKeptLost = false;

  /** `bufferBytes`: what may wait in memory; kept lines may use as much again. */
  constructor(deps: LineWriterDependencies, format: LineFormat, path: string, bufferBytes = 4_194_304) {
    this.#deps = deps;
    this.#format = format;
    this.#path = path;
    this.#bufferBytes = bufferBytes;
  }

  get stats(): LineWriterStats {
    return { ...this.#stats };
  }

  /** Opens the file. Rejects with the system's error. */
  async start(): Promise<void> {
    this.#file = await this.#deps.files.open(this.#path);
  }

  /** Takes a line, its line feed included, or counts it as lost. */
  write(text: string, kind: LineKind): void {
    const line = Buffer.from(text);
    const limit = kind === 'kept' ? this.#bufferBytes * 2 : this.#bufferBytes;
    if (this.#isStopped || (this.#heldBytes > 0 && this.#heldBytes + line.length > limit)) {
      this.#lose(1);
      this.#isKeptLost ||= kind === 'kept';
      return;
    }
    if (this.#unreportedLost > 0) this.#hold([Buffer.from(this.#format.lostLine(this.#unreportedLost))]);
    this.#unreportedLost = 0;
    if (this.#isKeptLost) this.#hold(this.#header());
    this.#isKeptLost = false;
    this.#hold([line]);
    if (this.#isFailing) return;
    if (this.#heldBytes >= FLUSH_BYTES) void this.flush();
    else this.#cancelTimer ??= this.#flushLater();
  }

  /** Resolves when all that was taken so far has been written, or a write has failed. */
  flush(): Promise<void> {
    if (this.#isFlushQueued) return this.#work.idle();
    this.#isFlushQueued = true;
    return this.#work.run(() => {
      this.#isFlushQueued = false;
      return this.#flush();
    });
  }

  /**
   * Writes what waits to the old file, then continues in a newly opened one (after a rename by logrotate), header
   * first. Never rejects: if it cannot be opened, the old one stays and the failure is reported.
   */
  reopen(): Promise<void> {
    return this.#work.run(async () => {
      if (this.#isStopped) return;
      await this.#flush();
      if (!(await this.#open())) return;
      const older = this.#waiting;
      // The rest of a half-written line is no line in another file.
      if (this.#isTorn) {
        older.shift();
        this.#lose(1);
      }
      this.#isTorn = false;
      this.#waiting = [];
      this.#heldBytes = 0;
      this.#hold(this.#header());
      this.#hold(older);
      await this.#flush();
    });
  }

  /** Writes what it can and closes. What cannot be written is lost and counted. Idempotent. */
  async stop(): Promise<void> {
    if (this.#isStopped) return this.#work.idle();
    this.#isStopped = true;
    await this.flush();
    this.#cancelTimer?.();
    this.#lose(this.#waiting.length);
    this.#waiting = [];
    await this.#file?.close();
    this.#file = undefined;
    const { linesLost: lines } = this.#stats;
    if (lines > 0) this.#deps.onEvent({ type: 'flow-log-lost', file: this.#path, lines });
  }

  #header(): readonly Buffer[] {
    return this.#format.header().map((line) => Buffer.from(line));
  }

  #hold(lines: readonly Buffer[]): void {
    for (const line of lines) {
      this.#waiting.push(line);
      this.#heldBytes += line.length;
    }
  }

  #lose(lines: number): void {
    this.#stats.linesLost += lines;
    this.#unreportedLost += lines;
  }

  #flushLater(): () => void {
    const due = (): void => {
      this.#cancelTimer = undefined;
      void this.flush();
    };
    return this.#deps.clock.setTimer(FLUSH_INTERVAL_MS, due, { unref: true });
  }

  async #flush(): Promise<void> {
    while (this.#file !== undefined && this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      const { written, error } = await this.#file.append(Buffer.concat(lines));
      this.#waiting = [...this.#unwritten(lines, written), ...this.#waiting];
      this.#heldBytes -= written;
      if (error !== undefined) {
        await this.#failed(error);
        return;
      }
      this.#succeeded();
    }
  }

  /** What is left of these when so many bytes are in the file. */
  #unwritten(lines: readonly Buffer[], written: number): readonly Buffer[] {
    let whole = 0;
    let left = written;
    for (const { length } of lines) {
      if (length > left) break;
      left -= length;
      whole++;
    }
    this.#stats.linesWritten += whole;
    if (whole > 0) this.#isTorn = false;
    const [first, ...rest] = lines.slice(whole);
    if (first === undefined) return [];
    if (left > 0) this.#isTorn = true;
    return [first.subarray(left), ...rest];
  }

  async #failed(error: unknown): Promise<void> {
    this.#stats.writeErrors++;
    if (!this.#isFailing) {
      this.#deps.onEvent({ type: 'flow-log-failed', action: 'write', file: this.#path, error });
    }
    this.#isFailing = true;
    if (errorCode(error) === 'EBADF') await this.#open();
    if (this.#isStopped) return;
    this.#cancelTimer?.();
    this.#cancelTimer = this.#flushLater();
  }

  #succeeded(): void {
    if (!this.#isFailing) return;
    this.#isFailing = false;
    const { linesLost } = this.#stats;
    this.#deps.onEvent({ type: 'flow-log-recovered', file: this.#path, linesLost });
  }

  /** Whether a new file took the place of the old. */
  async #open(): Promise<boolean> {
    try {
      const file = await this.#deps.files.open(this.#path);
      await this.#file?.close();
      this.#file = file;
      return true;
    } catch (error) {
      this.#deps.onEvent({ type: 'flow-log-failed', action: 'reopen', file: this.#path, error });
      return false;
    }
  }
}
