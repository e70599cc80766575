import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { examine } from '../../../src/doctor/checks.js';
import type { ConnectTarget } from '../../../src/model/address.js';
import type { DoctorMachine, ToolAnswer } from '../../../src/doctor/machine.js';
import type { Configuration, KernelOptions } from '../../../src/model/configuration.js';
import { GoldenFolder } from '../../support/golden.js';
import { configurationOf } from '../../support/state-factory.js';

const OPTIONS: KernelOptions = {
  ...{ mode: 'floating-l2', interface: 'eth0', returnPath: 'route', flowState: 'pinned' },
  ...{ spokes: [], onStop: 'keep', manageSysctls: false },
};

function configuration(kernel: Partial<KernelOptions> = {}): Configuration {
  const raw = {
    probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
    frontends: [{ name: 'hub', address: '10.9.0.10' }],
    backendPools: [{ name: 'nvas', backends: [{ name: 'b1', address: '10.2.0.11' }] }],
    rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true, probe: 'alive' }],
  };
  return { ...configurationOf(raw), kernel: { ...OPTIONS, ...kernel } };
}

/** A machine where all is well; `routing` has what was put into the routing and is there yet. */
class FakeMachine implements DoctorMachine {
  readonly routing = new Set<string>();
  readonly connects: ConnectTarget[] = [];
  capabilities = '000001ffffffffff';
  route: Record<string, unknown> = { dev: 'eth0', prefsrc: '10.2.0.1' };
  frontendRoute: Record<string, unknown> = { gateway: '10.2.0.254', dev: 'eth0' };
  mtu: Readonly<Record<string, number>> = { eth0: 1500 };
  answer: (target: ConnectTarget) => string = () => 'connected';
  /** The largest packets that get there, and whether those that do not are told of. */
  path = { bytes: 1500, tells: false };
  hasPing = true;
  pings = 0;
  timeMs = 0;
  /** That each tool takes. */
  runMs = 0;
  /** Changes of the routing that are refused. */
  refused = /never/;

  monotonicMs(): number {
    return this.timeMs;
  }

  run(tool: string, args: readonly string[]): Promise<ToolAnswer> {
    this.timeMs += this.runMs;
    return Promise.resolve({ exitCode: 0, stderr: '', stdout: '', ...this.#answerOf(tool, args) });
  }

  #answerOf(tool: string, args: readonly string[]): Partial<ToolAnswer> {
    const line = args.join(' ');
    if (tool === 'ping' && !this.hasPing) return { exitCode: undefined, failure: 'ENOENT' };
    if (tool === 'ping') return this.#ping(Number(args[args.indexOf('-s') + 1]) + 28);
    if (tool !== 'ip') return { stdout: `${tool} v1\n` };
    if (line.includes('route get')) {
      return { stdout: JSON.stringify([line.endsWith('10.9.0.10') ? this.frontendRoute : this.route]) };
    }
    if (line.includes('neigh show')) return { stdout: '[{"lladdr":"02:00:00:00:00:11"}]' };
    if (line.includes('link show')) {
      const mtu = this.mtu[args.at(-1) ?? ''];
      return mtu === undefined ? { exitCode: 1 } : { stdout: JSON.stringify([{ mtu, flags: ['UP'] }]) };
    }
    const change = /^(-\d) (route|rule|address) (add|replace|del) (.*)$/.exec(line);
    if (change === null) return { stdout: line };
    const [, family, object, verb, rest = ''] = change;
    if (this.refused.test(line)) return { exitCode: 2, stderr: 'Error: refused.\n' };
    const entry = `${family} ${object} ${rest.replace(' nodad', '')}`;
    if (verb !== 'del') this.routing.add(entry);
    else if (!this.routing.delete(entry)) return { exitCode: 2 };
    return {};
  }

  #ping(bytes: number): Partial<ToolAnswer> {
    this.pings += 1;
    const { tells, bytes: most } = this.path;
    if (bytes <= most) return {};
    const told = `From 10.2.0.254 icmp_seq=1 Frag needed and DF set (mtu = ${most})`;
    return { exitCode: 1, stdout: tells ? told : '2 packets transmitted, 0 received' };
  }

  readText(path: string): Promise<string | undefined> {
    return Promise.resolve(path.endsWith('/status') ? `Name:\tnode\nCapEff:\t${this.capabilities}\n` : '100');
  }

  connect(target: ConnectTarget): Promise<string> {
    this.connects.push(target);
    return Promise.resolve(this.answer(target));
  }

  wrongSettings(): Promise<[]> {
    return Promise.resolve([]);
  }

  descriptorShortages(): readonly string[] {
    return [];
  }

  refusal(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}

interface Story {
  readonly what: string;
  readonly kernel?: Partial<KernelOptions>;
  readonly paths?: 'not-tried';
  /** What is otherwise than well. */
  readonly change?: (machine: FakeMachine) => unknown;
}

const STORIES: readonly Story[] = [
  { what: 'all is well' },
  {
    what: 'a backend is alive, but does not take packets for the frontend',
    change: (machine) => (machine.answer = ({ to }) => (to.text === '10.2.0.11' ? 'refused' : 'silence')),
  },
  { what: 'a backend is dead', change: (machine) => (machine.answer = () => 'silence') },
  { what: 'the policy rule is refused', change: (machine) => (machine.refused = /rule add/) },
  {
    what: 'a backend is behind a gateway',
    change: (machine) => (machine.route = { dev: 'eth0', gateway: '10.2.0.254', prefsrc: '10.2.0.1' }),
  },
  {
    what: 'a backend is on another interface than packets leave by',
    change: (machine) => (machine.route = { dev: 'eth1', prefsrc: '10.3.0.1' }),
  },
  { what: 'the capability is missing', change: (machine) => (machine.capabilities = '0000000000000000') },
  {
    what: "this machine has the frontend's address, and is to route its packets on",
    kernel: { mode: 'floating-routed' },
    change: (machine) => (machine.frontendRoute = { type: 'local', dev: 'lo' }),
  },
  {
    what: 'larger packets arrive than the way to a backend takes',
    kernel: { mode: 'floating-routed' },
    paths: 'not-tried',
    change: (machine) => Object.assign(machine, { mtu: { eth0: 1500, eth1: 1400 }, route: { dev: 'eth1' } }),
  },
  ...(['nat', 'floating-l2'] as const).map((mode) => ({
    what: `a router says that a path takes less, with ${mode}`,
    kernel: { mode },
    paths: 'not-tried' as const,
    change: (machine: FakeMachine) => (machine.path = { bytes: 1400, tells: true }),
  })),
  {
    what: 'nothing answers echo requests',
    paths: 'not-tried',
    change: (machine) => (machine.path = { bytes: 0, tells: false }),
  },
  { what: 'ping is not installed', paths: 'not-tried', change: (machine) => (machine.hasPing = false) },
  { what: 'the time for all is up', change: (machine) => (machine.runMs = 30_000) },
  ...(['route', 'masquerade'] as const).map((returnPath) => ({
    what: `answers to a foreign address are lost, with nat by ${returnPath}`,
    kernel: { mode: 'nat' as const, returnPath },
    change: (machine: FakeMachine) =>
      (machine.answer = ({ fromAddress }) => (fromAddress === undefined ? 'connected' : 'silence')),
  })),
];

describe('examine()', () => {
  const golden = new GoldenFolder('test/unit/doctor', 'txt');

  test('says what is wrong and what to do about it, and puts the routing back', async () => {
    let text = '';
    for (const { what, kernel, paths = 'tried', change } of STORIES) {
      const machine = new FakeMachine();
      change?.(machine);
      const { healthy, sections } = await examine(machine, configuration(kernel), { paths });
      const findings = sections.flatMap((section) => section.findings);
      assert.equal(healthy, !findings.some(({ level }) => level === 'problem'));
      assert.deepEqual([...machine.routing], [], 'everything is taken out again');
      const tried = machine.connects.map(({ to, port }) => `${to.text}:${port}`).sort();
      text += [
        `# ${what}`,
        `connects to ${tried.join(', ') || 'nothing'}; ${machine.pings} pings`,
        ...sections.flatMap(({ title, findings: found }) => [
          title,
          ...found.flatMap((one) => [
            `  ${one.level}: ${one.text}`,
            ...(one.fix ?? []).map((fix) => `    > ${fix}`),
          ]),
        ]),
        '\n',
      ].join('\n');
    }
    golden.compare('reports', text);
  });

  for (const bytes of [577, 1000, 1320, 1399, 1492, 1499]) {
    test(`finds by itself that a path takes ${bytes} bytes where no router says so`, async () => {
      const machine = new FakeMachine();
      machine.path = { bytes, tells: false };
      const { sections } = await examine(machine, configuration(), { paths: 'tried' });
      const problems = sections.flatMap(({ findings }) =>
        findings.filter(({ level }) => level === 'problem'),
      );
      assert.deepEqual(
        problems.map(({ text }) => text.split(',')[0]),
        [`The path to it takes packets of ${bytes} bytes`],
      );
      assert.ok(machine.pings <= 2 + 8 * 4, `${machine.pings}`);
    });
  }
});
