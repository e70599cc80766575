import type { DoctorMachine } from '../../../src/doctor/machine.js';
import type { CliDeps, ProcessSignal, StartedBalancer } from '../../../src/cli/deps.js';
import { runCli } from '../../../src/cli/program.js';
import { parseConfiguration, type ParseResult } from '../../../src/config/load.js';
import type { Screen, ScreenLine, Terminal, TerminalSize } from '../../../src/cli/terminal.js';
import type { Configuration } from '../../../src/model/configuration.js';
import { systemClock, type Clock } from '../../../src/runtime/clock.js';

/** What a balancer was asked to do; stops end when the test says so. */
export class FakeBalancer implements StartedBalancer {
  readonly stops: { readonly cause: string; readonly deadlineMs: number }[] = [];
  reopened = 0;
  readonly reloads: { readonly text: string; readonly cause: string }[] = [];
  /** Called instead of an immediate reload. */
  onReload: () => Promise<void> = () => Promise.resolve();
  #end: ((report: { finished: number; reset: number }) => void)[] = [];
  #fail: ((error: Error) => void)[] = [];

  stop(cause: string, deadlineMs: number): Promise<{ finished: number; reset: number }> {
    this.stops.push({ cause, deadlineMs });
    return new Promise((resolve, reject) => {
      this.#end.push(resolve);
      this.#fail.push(reject);
    });
  }

  upgrades = 0;
  /** Says that another process has taken this one's place. */
  supersede: (request: { readonly deadlineMs?: number }) => void = () => undefined;
  readonly superseded = new Promise<{ readonly deadlineMs?: number }>(
    (resolve) => (this.supersede = resolve),
  );

  upgrade(): Promise<void> {
    this.upgrades++;
    return Promise.resolve();
  }

  reopenLogs(): Promise<void> {
    this.reopened++;
    return Promise.resolve();
  }

  reload(text: string, cause: string): Promise<void> {
    this.reloads.push({ text, cause });
    return this.onReload();
  }

  readonly refused: { readonly error: Error; readonly cause: string }[] = [];

  reloadRefused(error: Error, cause: string): void {
    this.refused.push({ error, cause });
  }

  stopped(): void {
    for (const end of this.#end.splice(0)) end({ finished: 0, reset: 0 });
  }

  failToStop(error: Error): void {
    for (const fail of this.#fail.splice(0)) fail(error);
  }
}

/** A terminal of any size whose screen and keys are in memory. */
export class FakeTerminal implements Terminal {
  isInteractive = false;
  columns = 80;
  rows = 24;
  /** Whole screens, as text, oldest first. */
  readonly drawn: string[] = [];
  opened = 0;
  closed = 0;
  onDraw: (lines: readonly ScreenLine[]) => void = () => undefined;
  #input: (text: string) => void = () => undefined;
  #resize: () => void = () => undefined;

  size(): TerminalSize {
    return { columns: this.columns, rows: this.rows };
  }

  openScreen(): Screen {
    this.opened++;
    return {
      draw: (lines) => {
        this.onDraw(lines);
        this.drawn.push(lines.map(({ text }) => text).join('\n'));
      },
      onInput: (listener) => void (this.#input = listener),
      onResize: (listener) => void (this.#resize = listener),
      close: () => {
        this.closed++;
      },
    };
  }

  type(text: string): void {
    this.#input(text);
  }

  resize(columns: number, rows: number): void {
    this.columns = columns;
    this.rows = rows;
    this.#resize();
  }

  get screen(): string {
    return this.drawn.at(-1) ?? '';
  }
}

/** A terminal, a file system of configurations and a process to signal, all in memory. */
export class FakeDeps implements CliDeps {
  stdout = '';
  stderr = '';
  readonly files = new Map<string, object | string>();
  readonly loaded: string[] = [];
  readonly started: { readonly configuration: Configuration; readonly source: string; findings: number }[] =
    [];
  readonly balancer = new FakeBalancer();
  readonly env: Record<string, string | undefined> = {};
  readonly terminal = new FakeTerminal();
  clock: Clock = systemClock;
  /** Listeners by path, as long as they watch. */
  readonly watched = new Map<string, (text: string) => void>();
  /** Called instead of an immediate start. */
  onStart: () => Promise<StartedBalancer> = () => Promise.resolve(this.balancer);
  readonly #listeners = new Set<(signal: ProcessSignal) => void>();
  readonly #outputListeners = new Set<() => void>();

  readonly out = (text: string): void => {
    this.stdout += text;
  };

  readonly err = (text: string): void => {
    this.stderr += text;
  };

  readonly load = (path: string): Promise<ParseResult> => {
    this.loaded.push(path);
    const content = this.files.get(path);
    if (content === undefined) return Promise.reject(new Error(`This test has no file ${path}`));
    return Promise.resolve(
      parseConfiguration(typeof content === 'string' ? content : JSON.stringify(content)),
    );
  };

  readonly startBalancer: CliDeps['startBalancer'] = (configuration, origin) => {
    this.started.push({ configuration, ...origin });
    return this.onStart();
  };

  readonly onSignal: CliDeps['onSignal'] = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly onOutputClosed: CliDeps['onOutputClosed'] = (listener) => {
    this.#outputListeners.add(listener);
    return () => this.#outputListeners.delete(listener);
  };

  readonly readText: CliDeps['readText'] = (path) => {
    const content = this.files.get(path);
    if (content === undefined) return Promise.reject(new Error(`ENOENT: no such file, open '${path}'`));
    return Promise.resolve(typeof content === 'string' ? content : JSON.stringify(content));
  };

  /** Pieces of three bytes, or of 4093 where there are many: lines and characters are cut anywhere. */
  readonly readChunks: CliDeps['readChunks'] = (path) => piecesOf(this.readText(path));

  readonly watchFile: CliDeps['watchFile'] = (path, onChange) => {
    this.watched.set(path, onChange);
    return Promise.resolve(() => void this.watched.delete(path));
  };

  /** Instances flushed. */
  readonly flushed: string[] = [];
  /** What an instance has left. */
  leftovers: readonly string[] = [];
  readonly kernel: { -readonly [K in keyof CliDeps['kernel']]: CliDeps['kernel'][K] } = {
    ruleset: ({ instance }, { full }) => `table of ${instance}${full ? ' in full' : ''}\n`,
    flush: (instance) => {
      this.flushed.push(instance);
      return Promise.resolve(this.leftovers);
    },
  };

  /** A machine without anything. */
  machine: DoctorMachine = {
    monotonicMs: () => 0,
    run: () => Promise.resolve({ exitCode: undefined, stdout: '', stderr: '', failure: 'ENOENT' }),
    readText: () => Promise.resolve(undefined),
    connect: () => Promise.resolve('silence'),
    wrongSettings: () => Promise.resolve([]),
    descriptorShortages: () => [],
    refusal: () => Promise.resolve(undefined),
  };
  readonly doctor: CliDeps['doctor'] = () => Promise.resolve(this.machine);

  closeOutput(): void {
    for (const listener of [...this.#outputListeners]) listener();
  }

  get outputListeners(): number {
    return this.#outputListeners.size;
  }

  get signalListeners(): number {
    return this.#listeners.size;
  }

  signal(signal: ProcessSignal): void {
    for (const listener of [...this.#listeners]) listener(signal);
  }

  /** With this as config.json. */
  static with(configuration: object | string): FakeDeps {
    const deps = new FakeDeps();
    deps.files.set('config.json', configuration);
    return deps;
  }

  /** Runs one command line; the bundled configuration is `bundled.json`. */
  run(...args: readonly string[]): Promise<number> {
    return runCli(this, args, 'bundled.json');
  }
}

async function* piecesOf(text: Promise<string>): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(await text);
  const size = bytes.length < 100_000 ? 3 : 4093;
  for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size);
}
