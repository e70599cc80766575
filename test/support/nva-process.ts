import { fork, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { within } from './deadline.js';

export interface NvaOptions {
  readonly name: string;
  readonly address: string;
  /** As a port set: `8000-8099`. */
  readonly ports: string;
  readonly healthPort: number;
}

/** A sample NVA in a process of its own, so that a test can freeze or kill it. */
export class NvaProcess {
  readonly options: NvaOptions;
  #child: ChildProcess;

  private constructor(options: NvaOptions, child: ChildProcess) {
    this.options = options;
    this.#child = child;
  }

  static async start(options: NvaOptions): Promise<NvaProcess> {
    return new NvaProcess(options, await launch(options));
  }

  /** `nva-1` at `host(11)` and on, with their health on port 9000. */
  static startAll(host: (number: number) => string, ports: string, count = 3): Promise<NvaProcess[]> {
    const numbers = Array.from({ length: count }, (_, index) => index + 1);
    return Promise.all(
      numbers.map((n) =>
        NvaProcess.start({ name: `nva-${n}`, address: host(10 + n), ports, healthPort: 9000 }),
      ),
    );
  }

  freeze(): void {
    this.#child.kill('SIGSTOP');
  }

  thaw(): void {
    this.#child.kill('SIGCONT');
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }

  async restart(): Promise<void> {
    await this.kill();
    this.#child = await launch(this.options);
  }

  async setHealth(state: 'sick' | 'well'): Promise<void> {
    const { address, healthPort } = this.options;
    const response = await fetch(`http://${address}:${healthPort}/${state}`, { method: 'POST' });
    if (!response.ok) throw new Error(`NVA refused to be ${state}: HTTP ${response.status}`);
  }
}

async function launch({ name, address, ports, healthPort }: NvaOptions): Promise<ChildProcess> {
  const script = resolve('dist/nva-main.js');
  const child = fork(script, [name, address, ports, String(healthPort)], {
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const message = await within(
    new Promise<{ type: string; message?: string }>((resolve) => {
      child.once('message', (first) => resolve(first as { type: string; message?: string }));
      child.once('exit', (code) => resolve({ type: 'failed', message: `exit code ${code}` }));
    }),
    20_000,
    `sample NVA ${name} to serve`,
  );
  if (message.type === 'failed') throw new Error(`Sample NVA ${name}: ${message.message}`);
  return child;
}
