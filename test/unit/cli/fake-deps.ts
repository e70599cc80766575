import type { CliDeps, ProcessSignal, StartedBalancer } from '../../../src/cli/cli-deps.js';
import { runCli } from '../../../src/cli/program.js';
import { parseConfiguration, type ParseResult } from '../../../src/config/load.js';
import type { Configuration } from '../../../src/model/configuration.js';

/** What a balancer was told to do; stops end when the test says so. */
export class FakeBalancer implements StartedBalancer {
  readonly stops: { readonly cause: string; readonly deadlineMs: number }[] = [];
  reopened = 0;
  #end: ((report: { finished: number; reset: number }) => void)[] = [];
  #fail: ((error: Error) => void)[] = [];

  stop(cause: string, deadlineMs: number): Promise<{ finished: number; reset: number }> {
    this.stops.push({ cause, deadlineMs });
    return new Promise((resolve, reject) => {
      this.#end.push(resolve);
      this.#fail.push(reject);
    });
  }

  reopenLogs(): Promise<void> {
    this.reopened++;
    return Promise.resolve();
  }

  stopped(): void {
    for (const end of this.#end.splice(0)) end({ finished: 0, reset: 0 });
  }

  failToStop(error: Error): void {
    for (const fail of this.#fail.splice(0)) fail(error);
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
  /** Called instead of an immediate start. */
  onStart: () => Promise<StartedBalancer> = () => Promise.resolve(this.balancer);
  readonly #listeners = new Set<(signal: ProcessSignal) => void>();

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

  get signalListeners(): number {
    return this.#listeners.size;
  }

  signal(signal: ProcessSignal): void {
    for (const listener of [...this.#listeners]) listener(signal);
  }

  /** Runs one command line; the bundled configuration is `bundled.json`. */
  run(...args: readonly string[]): Promise<number> {
    return runCli(this, args, 'bundled.json');
  }
}
