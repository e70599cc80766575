import assert from 'node:assert/strict';
import type { StatusView } from '../../src/api/views.js';
import type { UpgradeOutcome } from '../../src/model/events.js';
import { eventually } from './deadline.js';
import { haportsHere } from './command-here.js';
import { HaportsProcess, isAlive, type CommandResult } from './haports-process.js';
import { labConfig } from './lab-config.js';
import { logEvents } from './log-lines.js';
import { loopbackBlock } from './loopback.js';
import { RecordingBackend } from './recording-backend.js';

/** The built process in front of echoes that remember source ports, and its successors: whoever starts it ends it. */
export class UpgradeLab {
  readonly host: (number: number) => string;
  readonly backends: readonly RecordingBackend[];
  readonly first: HaportsProcess;

  private constructor(parts: Pick<UpgradeLab, 'host' | 'backends' | 'first'>) {
    this.host = parts.host;
    this.backends = parts.backends;
    this.first = parts.first;
  }

  static async start(options: {
    readonly salt: number;
    readonly listenPorts: string;
    readonly echoPorts: readonly number[];
    readonly rule?: object;
    readonly top?: object;
    readonly env?: Readonly<Record<string, string>>;
  }): Promise<UpgradeLab> {
    const host = loopbackBlock(options.salt);
    const backends = await Promise.all(
      [11, 12, 13].map((number) => RecordingBackend.open(host(number), options.echoPorts)),
    );
    const first = await HaportsProcess.start(
      labConfig(host, {
        listenPorts: options.listenPorts,
        ...(options.rule === undefined ? {} : { rule: options.rule }),
        top: { dataPlane: { workers: 0 }, shutdown: { deadline: '20s' }, ...options.top },
      }),
      options.env === undefined ? {} : { env: options.env },
    );
    return new UpgradeLab({ host, backends, first });
  }

  /** What all processes have logged. */
  get log(): string {
    return this.first.log();
  }

  command(...args: readonly string[]): Promise<CommandResult> {
    return haportsHere([...args, '--socket', this.first.socket]);
  }

  async upgrade(...args: readonly string[]): Promise<UpgradeOutcome> {
    const { code, stdout, stderr } = await this.command('upgrade', '--json', ...args);
    assert.equal(code, 0, `haports upgrade:\n${stdout}${stderr}\n${this.log}`);
    const outcome = JSON.parse(stdout) as UpgradeOutcome;
    // Its admin socket is the last that the new process gets from the old one.
    const answers = async (): Promise<boolean> =>
      (await this.first.get<StatusView>('/v1/status')).pid === outcome.pid;
    await eventually(answers, 20_000, 'the new process to have the admin API');
    return outcome;
  }

  async json<T>(...args: readonly string[]): Promise<T> {
    const { code, stdout, stderr } = await this.command(...args, '--json');
    assert.equal(code, 0, `haports ${args.join(' ')}:\n${stdout}${stderr}`);
    return JSON.parse(stdout) as T;
  }

  async stop(): Promise<void> {
    const pids = logEvents(this.log, 'upgrade-started').map(({ newPid }) => Number(newPid));
    await this.first.kill();
    for (const pid of pids) {
      if (!(await isAlive(pid))) continue;
      process.kill(pid, 'SIGKILL');
      await eventually(async () => !(await isAlive(pid)), 5000, `process ${pid} to be gone`);
    }
    for (const backend of this.backends) backend.close();
  }
}
