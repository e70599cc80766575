import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { formatEndpoint, type IpAddress } from '../model/address.js';
import type { Configuration, Rule } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { formatPortSet, portSetContains, unionPorts, type PortSet } from '../model/ports.js';
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

export interface BannerOptions {
  /** How haports is called here, with the configuration: `npx haports explain -c config.json`. */
  readonly explainCommand: string;
}

/** What `haports demo` prints: what runs, what to try, where to look. Ends with a line feed. */
export function demoBanner(configuration: Configuration, options: BannerOptions): string {
  const backends = demoBackends(configuration);
  const lines = configuration.rules.map((rule) => ruleLine(rule));
  const rule = bestToTry(configuration);
  const frontend = rule?.frontend;
  const port = rule?.ports[0]?.first;
  lines.push('');
  if (rule !== undefined && frontend !== undefined && port !== undefined) {
    const { text } = frontend.address;
    const protocols: readonly string[] = rule.protocols;
    const browserPort = portSetContains(rule.ports, 8080) ? 8080 : port;
    if (protocols.includes('tcp')) lines.push(`  TCP      printf 'hello\\n' | nc -N ${text} ${port}`);
    if (protocols.includes('udp')) lines.push(`  UDP      printf hello | nc -u -w1 ${text} ${port}`);
    if (protocols.includes('tcp')) {
      lines.push(`  browser  http://${formatEndpoint(frontend.address, browserPort)}/`);
    }
    const client = formatEndpoint(frontend.address, 40_000);
    const target = formatEndpoint(frontend.address, port);
    lines.push(`  explain  ${options.explainCommand} ${protocols[0] ?? 'tcp'} ${client} ${target}`);
  }
  const first = backends.find(({ healthPort }) => healthPort > 0);
  if (first !== undefined) {
    const endpoint = formatEndpoint(first.address, first.healthPort);
    lines.push(`  sick     curl -X POST http://${endpoint}/sick     (and /well again)`);
  }
  const { admin } = configuration;
  if (admin?.http !== undefined) {
    const scheme = admin.tls === undefined ? 'http' : 'https';
    lines.push(
      `  operate  ${scheme}://${formatEndpoint(admin.http.address, admin.http.port)}/     (dashboard)`,
    );
  }
  if (configuration.metrics !== undefined) {
    const { address, port: metricsPort } = configuration.metrics;
    lines.push(`  metrics  http://${formatEndpoint(address, metricsPort)}/metrics`);
  }
  lines.push('', 'Ctrl-C stops it all.', '');
  return lines.join('\n');
}

function ruleLine(rule: Rule): string {
  const names = rule.pool.backends.map(({ name }) => name).join(', ');
  const protocols = rule.protocols.map((protocol) => protocol.toUpperCase()).join(' and ');
  return `haports balances ${rule.frontend.address.text}, ${protocols}, ports ${formatPortSet(rule.ports)}, over ${names}`;
}

/** A rule on IPv4 that serves both protocols is the easiest to type for. */
function bestToTry(configuration: Configuration): Rule | undefined {
  const score = ({ protocols, frontend }: Rule) =>
    protocols.length * 2 + (frontend.address.family === 4 ? 1 : 0);
  return configuration.rules.toSorted((a, b) => score(b) - score(a))[0];
}
