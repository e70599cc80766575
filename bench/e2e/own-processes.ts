import { spawn, type ChildProcess } from 'node:child_process';
import { within } from '../../test/support/deadline.js';
import type { Lab, Role } from './lab.js';

const OUTPUT_LIMIT = 256 * 1024;

/** Where a process runs: whose network, and on which cores (`taskset -c`). */
export interface Place {
  readonly role: Role;
  readonly cores: string;
}

/** A process that the bench started, leader of a process group of its own. */
export class OwnProcess {
  readonly name: string;
  readonly pid: number;
  /** The exit code; null after a signal. */
  readonly exit: Promise<number | null>;
  readonly #child: ChildProcess;
  #stdout = '';
  #stderr = '';
  #ended = false;

  constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.name = name;
    this.pid = child.pid ?? 0;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-OUTPUT_LIMIT);
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-OUTPUT_LIMIT);
    });
    child.stdin?.on('error', () => undefined);
    this.exit = new Promise((resolve) => {
      child.once('close', (code) => {
        this.#ended = true;
        resolve(code);
      });
      child.once('error', (error) => {
        this.#ended = true;
        this.#stderr += error.message;
        resolve(null);
      });
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Closes its standard input: our own load tools end on that. */
  release(): void {
    this.#child.stdin?.end();
  }

  /** Kills it and all that it started, and waits. */
  async stop(): Promise<void> {
    if (!this.#ended && this.pid > 0) {
      try {
        process.kill(-this.pid, 'SIGKILL');
      } catch {
        // It ended in between.
      }
    }
    await within(this.exit, 10_000, `${this.name} (pid ${this.pid}) to end`);
  }
}

/** Starts processes in their place and keeps account of them, so that none is left behind. */
export class OwnProcesses {
  readonly #lab: Lab;
  readonly #live = new Set<OwnProcess>();
  #closed = false;

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  start(place: Place, name: string, argv: readonly string[]): OwnProcess {
    if (this.#closed) throw new Error(`Cannot start ${name}: the bench is ending`);
    const [program = '', ...rest] = [...this.#lab.prefix(place.role), 'taskset', '-c', place.cores, ...argv];
    const child = spawn(program, rest, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    const own = new OwnProcess(child, name);
    this.#live.add(own);
    void own.exit.then(() => this.#live.delete(own));
    return own;
  }

  /** Runs a command to its end and gives its standard output. Rejects when it fails or takes too long. */
  async run(place: Place, name: string, argv: readonly string[], timeoutMs: number): Promise<string> {
    const own = this.start(place, name, argv);
    try {
      const code = await within(own.exit, timeoutMs, `${name} to end`);
      if (code !== 0) throw new Error(`${name} ended with ${code}: ${tail(own)}`);
      return own.stdout;
    } finally {
      await own.stop();
    }
  }

  /** Stops all, and starts none any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.stopAll();
  }

  async stopAll(): Promise<void> {
    await Promise.allSettled([...this.#live].map((own) => own.stop()));
  }
}

/** What a process said about its end, for messages: a line that tells of an error, else its last. */
export function tail(own: OwnProcess): string {
  const text = own.stderr.trim() === '' ? own.stdout : own.stderr;
  const lines = text.trim().split('\n');
  return (lines.findLast((line) => /error/i.test(line)) ?? lines.at(-1) ?? '').slice(0, 300);
}
