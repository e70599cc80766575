import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { eventually } from '../support/deadline.js';

export interface StartOptions {
  readonly main: string;
  /** Its `admin.socket` is set, and `DIR` in any text stands for a folder of its own. */
  readonly configuration: object;
  /** Before the command line: `ip netns exec NAME`. */
  readonly prefix?: readonly string[];
}

/** `haports run`, driven through its admin socket. Whoever starts it closes it. */
export class RunningHaports {
  readonly folder: string;
  readonly #child: ChildProcess;
  readonly #atExit = (): void => void this.#child.kill('SIGKILL');
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    process.once('exit', this.#atExit);
    this.folder = folder;
  }

  /** Resolves once the admin API answers. */
  static async start({ main, configuration, prefix = [] }: StartOptions): Promise<RunningHaports> {
    const folder = await mkdtemp(join(tmpdir(), 'haports-corpus-'));
    const path = join(folder, 'config.json');
    await writeFile(path, JSON.stringify(completed(configuration, folder)));
    const command: string[] = [...prefix, process.execPath, resolve(main), 'run', '-c', path];
    const [program = '', ...args] = command;
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()));
    const started = new RunningHaports(child, folder);
    try {
      await eventually(
        async () => {
          if (child.exitCode !== null) throw new Error(`haports ended with ${child.exitCode}`);
          return (await started.call('GET', '/v1/status')) !== undefined;
        },
        60_000,
        'haports to answer',
      );
    } catch (cause) {
      await started.close();
      throw new Error(`haports did not start:\n${log}`, { cause });
    }
    return started;
  }

  /** The body of an answer, parsed. Rejects unless it is a 2xx. */
  call(method: string, path: string, body?: object): Promise<unknown> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const type = payload === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise((done, fail) => {
      const options = { socketPath: join(this.folder, 's'), method, path, agent: this.#agent };
      const call = request({ ...options, headers: { host: 'localhost', ...type } }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => (text += part));
        response.once('error', fail).once('end', () => {
          const { statusCode = 0 } = response;
          if (statusCode >= 200 && statusCode < 300) done(text === '' ? {} : (JSON.parse(text) as unknown));
          else fail(new Error(`${method} ${path}: ${statusCode} ${text}`));
        });
      });
      call.on('error', fail).end(payload);
    });
  }

  /** Takes a configuration over, completed as that of the start. */
  async reload(configuration: object): Promise<void> {
    await this.call('POST', '/v1/reload', completed(configuration, this.folder));
  }

  /** SIGTERM, and waits; SIGKILL after ten seconds. */
  async close(): Promise<void> {
    this.#agent.destroy();
    process.off('exit', this.#atExit);
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = new Promise((done) => this.#child.once('exit', done));
      this.#child.kill('SIGTERM');
      const killer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(killer);
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

function completed(configuration: object, folder: string): object {
  const text = JSON.stringify({ ...configuration, admin: { socket: join(folder, 's') } });
  return JSON.parse(text.replaceAll('DIR', folder)) as object;
}
