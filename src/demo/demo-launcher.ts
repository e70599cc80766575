import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { formatPortSet } from '../model/port-set.js';
import { demoBackends, type DemoBackend } from './demo-backends.js';
import type { NvaMessage } from './nva-main.js';

/** A sample NVA that runs. */
export interface RunningNva extends DemoBackend {
  readonly pid: number;
}

export interface RunningDemo {
  readonly nvas: readonly RunningNva[];
  /** Ends those that still run, by pid, and waits for them. Idempotent. */
  stop(): Promise<void>;
}

/** A hundred ports open in well under a second; all 65,535 take longer. */
const START_TIMEOUT_MS = 30_000;

/**
 * Starts a sample NVA process for every backend that the configuration's rules lead to, and resolves when all of
 * them serve. None is restarted, so that one can be killed to see what happens. They also end when this process
 * does, however it ends. Rejects with `LB_LISTEN_FAILED`, all stopped, where one cannot start. Prints nothing.
 */
export async function startDemoBackends(configuration: Configuration): Promise<RunningDemo> {
  const children: ChildProcess[] = [];
  const stop = async () => {
    await Promise.all(children.map(end));
  };
  try {
    const nvas = await Promise.all(demoBackends(configuration).map((backend) => launch(backend, children)));
    return { nvas, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function launch(backend: DemoBackend, children: ChildProcess[]): Promise<RunningNva> {
  const { name, address, ports, healthPort } = backend;
  const child = fork(
    fileURLToPath(new URL('./nva-main.js', import.meta.url)),
    [name, address.text, formatPortSet(ports), String(healthPort)],
    // The parent's flags (--inspect, --test) are not for the child.
    { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
  );
  children.push(child);
  const message = await firstMessage(name, child);
  if (message.type === 'failed' || child.pid === undefined) {
    const reason = message.type === 'failed' ? message.message : `Sample NVA "${name}" has no process`;
    throw new BalancerError(reason, { code: 'LB_LISTEN_FAILED', source: 'system' });
  }
  return { ...backend, healthPort: message.healthPort, pid: child.pid };
}

function firstMessage(name: string, child: ChildProcess): Promise<NvaMessage> {
  return new Promise((resolve) => {
    const failed = (what: string) => resolve({ type: 'failed', message: `Sample NVA "${name}" ${what}` });
    const timer = setTimeout(() => failed(`has not started in ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS);
    child.once('message', (message) => resolve(message as NvaMessage));
    child.once('error', (error) => failed(`cannot be started: ${error.message}`));
    child.once('exit', (code, signal) =>
      failed(`ended while starting (${signal ?? `exit code ${code ?? 0}`})`),
    );
    const settle = () => clearTimeout(timer);
    child.once('message', settle).once('error', settle).once('exit', settle);
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  // A stopped process (SIGSTOP) takes no SIGTERM.
  child.kill('SIGKILL');
  await gone;
}
