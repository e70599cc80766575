import { fork, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { SampleNva } from '../../src/demo/nva.js';
import { ipAddress } from '../../src/model/address.js';
import { parsePortSet } from '../../src/model/ports.js';
import { ask } from './admin-api.js';
import { within } from './deadline.js';

export interface NvaOptions {
  readonly name: string;
  readonly address: string;
  /** As a port set: `8000-8099`. */
  readonly ports: string;
  readonly healthPort: number;
}

/** A sample NVA that a test started. */
export interface RunningNva {
  readonly options: NvaOptions;
  /** Ends it with all its connections. */
  kill(): Promise<void>;
  setHealth(state: 'sick' | 'well'): Promise<void>;
}

/** Starts sample NVAs: in this process, which saves starting others, or in processes of their own. */
export interface NvaKind<Nva extends RunningNva> {
  start(options: NvaOptions): Promise<Nva>;
}

/** `nva-1` at `host(11)` and on, with their health on port 9000. */
export function startNvas<Nva extends RunningNva>(
  kind: NvaKind<Nva>,
  host: (number: number) => string,
  ports: string,
  count = 3,
): Promise<Nva[]> {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return Promise.all(
    numbers.map((n) => kind.start({ name: `nva-${n}`, address: host(10 + n), ports, healthPort: 9000 })),
  );
}

/** A sample NVA in this process, for tests that do not freeze or crash it. */
export class NvaHere implements RunningNva {
  readonly options: NvaOptions;
  readonly #nva: SampleNva;

  private constructor(options: NvaOptions, nva: SampleNva) {
    this.options = options;
    this.#nva = nva;
  }

  static async start(options: NvaOptions): Promise<NvaHere> {
    const { name, address, ports, healthPort } = options;
    const nva = new SampleNva({
      name,
      address: ipAddress(address),
      ports: parsePortSet(ports) ?? [],
      healthPort,
    });
    await nva.start();
    return new NvaHere(options, nva);
  }

  kill(): Promise<void> {
    return this.#nva.stop();
  }

  setHealth(state: 'sick' | 'well'): Promise<void> {
    return setHealth(this.options, state);
  }
}

/** A sample NVA in a process of its own, so that a test can freeze or kill it. */
export class NvaProcess implements RunningNva {
  readonly options: NvaOptions;
  #child: ChildProcess;

  private constructor(options: NvaOptions, child: ChildProcess) {
    this.options = options;
    this.#child = child;
  }

  static async start(options: NvaOptions): Promise<NvaProcess> {
    return new NvaProcess(options, await launch(options));
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

  setHealth(state: 'sick' | 'well'): Promise<void> {
    return setHealth(this.options, state);
  }
}

async function setHealth({ address, healthPort }: NvaOptions, state: 'sick' | 'well'): Promise<void> {
  const { status } = await ask({ host: address, port: healthPort }, `/${state}`, { method: 'POST' });
  if (status !== 200) throw new Error(`NVA refused to be ${state}: HTTP ${status}`);
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
