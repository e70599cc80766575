import { fork, type ChildProcess } from 'node:child_process';
import { formatEndpoint, type IpAddress } from '../model/address.js';
import type { Configuration, Rule } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { formatPortSet, portSetContains, unionPorts, type PortSet } from '../model/ports.js';
import { installedFile } from '../runtime/files.js';
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
    return {
      nvas: await Promise.all(demoBackends(configuration).map((backend) => launch(backend, children))),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function launch(backend: DemoBackend, children: ChildProcess[]): Promise<RunningNva> {
  const { name, address, ports, healthPort } = backend;
  const child = fork(
    installedFile('dist/nva-main.js'),
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
    const settle = (message: NvaMessage): void => {
      clearTimeout(timer);
      resolve(message);
    };
    const failed = (what: string): void =>
      settle({ type: 'failed', message: `Sample NVA "${name}" ${what}` });
    const timer = setTimeout(() => failed(`has not started in ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS);
    child.once('message', (message) => settle(message as NvaMessage));
    child.once('error', (error) => failed(`cannot be started: ${error.message}`));
    child.once('exit', (code, signal) =>
      failed(`ended while starting (${signal ?? `exit code ${code ?? 0}`})`),
    );
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  // A stopped process (SIGSTOP) takes no SIGTERM.
  child.kill('SIGKILL');
  await gone;
}

/** One sample NVA that a configuration calls for. */
export interface DemoBackend {
  readonly backendId: string;
  readonly name: string;
  readonly address: IpAddress;
  /** Every port that a rule sends to it. */
  readonly ports: PortSet;
  /** Port of the probe; 0 where no rule has one. */
  readonly healthPort: number;
}

/** The backends that rules lead to, in order of the configuration, one for each address. */
export function demoBackends(configuration: Configuration): readonly DemoBackend[] {
  const backends = new Map<string, DemoBackend>();
  for (const rule of configuration.rules) {
    const ports = rule.ports.map(({ first, last }) => ({
      first: first + rule.portOffset,
      last: last + rule.portOffset,
    }));
    for (const { id, name, address } of rule.pool.backends) {
      const before = backends.get(address.text);
      backends.set(address.text, {
        backendId: before?.backendId ?? id,
        name: before?.name ?? name,
        address,
        ports: unionPorts(before?.ports ?? [], ports),
        healthPort: before?.healthPort || (rule.probe?.port ?? 0),
      });
    }
  }
  return [...backends.values()];
}

/**
 * What `haports demo` prints: what runs, what to try, where to look. Ends with a line feed. `explainCommand` is how
 * haports is called here, with the configuration: `npx haports explain -c config.json`.
 */
export function demoBanner(configuration: Configuration, explainCommand: string): string {
  const { rules, admin, metrics } = configuration;
  const probed = demoBackends(configuration).find(({ healthPort }) => healthPort > 0);
  return [
    ...rules.map(ruleLine),
    '',
    ...thingsToTry(rules, explainCommand),
    probed &&
      `  sick     curl -X POST http://${formatEndpoint(probed.address, probed.healthPort)}/sick     (and /well again)`,
    admin?.http &&
      `  operate  ${admin.tls === undefined ? 'http' : 'https'}://${formatEndpoint(admin.http.address, admin.http.port)}/     (dashboard)`,
    metrics && `  metrics  http://${formatEndpoint(metrics.address, metrics.port)}/metrics`,
    '',
    'Ctrl-C stops it all.',
    '',
  ]
    .filter((line) => line !== undefined)
    .join('\n');
}

function ruleLine({ pool, protocols, ports, frontend }: Rule): string {
  const names = pool.backends.map(({ name }) => name).join(', ');
  const both = protocols.map((protocol) => protocol.toUpperCase()).join(' and ');
  return `haports balances ${frontend.address.text}, ${both}, ports ${formatPortSet(ports)}, over ${names}`;
}

function thingsToTry(rules: readonly Rule[], explainCommand: string): readonly string[] {
  // A rule on IPv4 that serves both protocols is the easiest to type for.
  const score = ({ protocols, frontend }: Rule): number =>
    protocols.length * 2 + (frontend.address.family === 4 ? 1 : 0);
  const rule = rules.toSorted((a, b) => score(b) - score(a))[0];
  const port = rule?.ports[0]?.first;
  if (rule === undefined || port === undefined) return [];
  const { address } = rule.frontend;
  const tries = {
    tcp: `  TCP      printf 'hello\\n' | nc -N ${address.text} ${port}`,
    udp: `  UDP      printf hello | nc -u -w1 ${address.text} ${port}`,
  };
  const protocols = (['tcp', 'udp'] as const).filter((protocol) => rule.protocols.includes(protocol));
  const browserPort = portSetContains(rule.ports, 8080) ? 8080 : port;
  const flow = [rule.protocols[0], formatEndpoint(address, 40_000), formatEndpoint(address, port)];
  return [
    ...protocols.map((protocol) => tries[protocol]),
    ...(protocols.includes('tcp') ? [`  browser  http://${formatEndpoint(address, browserPort)}/`] : []),
    `  explain  ${explainCommand} ${flow.join(' ')}`,
  ];
}
