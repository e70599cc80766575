import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { examine } from '../../../src/doctor/checks.js';
import type { DoctorMachine, ConnectTarget, ToolAnswer } from '../../../src/doctor/machine.js';
import type { Configuration, KernelOptions } from '../../../src/model/configuration.js';
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
  pings = 0;
  timeMs = 0;
  /** Changes of the routing that are refused. */
  refused = /never/;

  monotonicMs(): number {
    return this.timeMs;
  }

  run(tool: string, args: readonly string[]): Promise<ToolAnswer> {
    return Promise.resolve({ exitCode: 0, stderr: '', stdout: '', ...this.#answerOf(tool, args) });
  }

  #answerOf(tool: string, args: readonly string[]): Partial<ToolAnswer> {
    const line = args.join(' ');
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

  refusal(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}

async function problemsOf(machine: FakeMachine, kernel: Partial<KernelOptions> = {}): Promise<string[]> {
  const report = await examine(machine, configuration(kernel), { paths: 'tried' });
  const problems = report.sections.flatMap(({ findings }) =>
    findings.filter(({ level }) => level === 'problem'),
  );
  assert.equal(report.healthy, problems.length === 0);
  assert.deepEqual([...machine.routing], [], 'everything is taken out again');
  return problems.map(({ text }) => text);
}

describe('examine()', () => {
  test('finds no problem where there is none, and tries the probe port on both ways', async () => {
    const machine = new FakeMachine();
    assert.deepEqual(await problemsOf(machine), []);
    assert.deepEqual(machine.connects.map(({ to, port }) => `${to.text}:${port}`).sort(), [
      '10.2.0.11:9000',
      '10.9.0.10:9000',
    ]);
  });

  test('tells a backend that is alive but does not take packets for the frontend from one that is dead', async () => {
    const machine = new FakeMachine();
    machine.answer = ({ to }) => (to.text === '10.2.0.11' ? 'refused' : 'silence');
    assert.match(
      (await problemsOf(machine)).join(),
      /^It is alive, but does not answer as 10\.9\.0\.10:9000 \(silence\)/,
    );
    machine.answer = () => 'silence';
    assert.match((await problemsOf(machine)).join(), /^No answer from 10\.2\.0\.11:9000 \(silence\)/);
  });

  test('takes its routes out again where the policy rule is refused', async () => {
    const machine = new FakeMachine();
    machine.refused = /rule add/;
    assert.match((await problemsOf(machine)).join(), /refused/);
  });

  test('wants a neighbour, on the interface that packets leave by', async () => {
    const machine = new FakeMachine();
    machine.route = { dev: 'eth0', gateway: '10.2.0.254', prefsrc: '10.2.0.1' };
    assert.match(
      (await problemsOf(machine)).join(),
      /behind the gateway 10\.2\.0\.254: with mode floating-l2/,
    );
    machine.route = { dev: 'eth1', prefsrc: '10.3.0.1' };
    assert.match((await problemsOf(machine)).join(), /It is on eth1, and packets are sent out of eth0 only/);
  });

  test('tries no path without the capability, and says so', async () => {
    const machine = new FakeMachine();
    machine.capabilities = '0000000000000000';
    const problems = await problemsOf(machine);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /CAP_NET_ADMIN is missing/);
    assert.equal(machine.connects.length, 1);
  });

  test('does not keep packets that it is to route on', async () => {
    const machine = new FakeMachine();
    machine.frontendRoute = { type: 'local', dev: 'lo' };
    assert.match(
      (await problemsOf(machine, { mode: 'floating-routed' })).join(),
      /^It is an address of this machine, which keeps its packets/,
    );
    assert.equal(machine.connects.length, 1, 'the path through it cannot be tried');
  });

  test('warns where large packets arrive that the way to a backend does not take', async () => {
    const machine = new FakeMachine();
    machine.mtu = { eth0: 1500, eth1: 1400 };
    machine.route = { dev: 'eth1' };
    const { sections } = await examine(machine, configuration({ mode: 'floating-routed' }), {
      paths: 'not-tried',
    });
    const warnings = sections.flatMap(({ findings }) => findings.filter(({ level }) => level === 'warning'));
    assert.match(
      warnings.map(({ text }) => text).join(),
      /takes packets of 1400 bytes, and up to 1500 bytes arrive/,
    );
  });

  for (const bytes of [577, 1000, 1320, 1399, 1492, 1499]) {
    test(`finds by itself that a path takes ${bytes} bytes where nobody says so`, async () => {
      const machine = new FakeMachine();
      machine.path = { bytes, tells: false };
      assert.match(
        (await problemsOf(machine)).join(),
        new RegExp(`^The path to it takes packets of ${bytes} bytes`),
      );
      assert.ok(machine.pings <= 2 + 8 * 4, `${machine.pings}`);
    });
  }

  test('warns of a path that takes less where a router says so, and says what to set', async () => {
    const machine = new FakeMachine();
    machine.path = { bytes: 1400, tells: true };
    for (const [mode, fix] of [
      ['nat', /daddr 10\.2\.0\.11 tcp flags syn tcp option maxseg size set 1360/],
      ['floating-l2', /on the backend, .* advmss 1360/],
    ] as const) {
      const { sections } = await examine(machine, configuration({ mode }), { paths: 'not-tried' });
      const found = sections
        .flatMap(({ findings }) => findings)
        .filter(({ text }) => text.includes('(path MTU)'));
      assert.deepEqual(
        found.map(({ level, text }) => `${level}: ${text}`),
        [
          'warning: The path to it takes packets of 1400 bytes, and 1500 bytes may be sent (path MTU): 10.2.0.254 says so, which helps where its ICMP errors get to the clients',
        ],
      );
      assert.match(found[0]?.fix?.join('\n') ?? '', fix);
    }
  });

  test('says why a path was not measured', async () => {
    const machine = new FakeMachine();
    const run = machine.run.bind(machine);
    machine.path = { bytes: 0, tells: false };
    assert.match(await unmeasured(machine), /it does not answer echo requests$/);
    machine.run = (tool, args) =>
      tool === 'ping'
        ? Promise.resolve({ exitCode: undefined, stdout: '', stderr: '', failure: 'ENOENT' })
        : run(tool, args);
    assert.match(await unmeasured(machine), /ping is not installed/);
  });

  async function unmeasured(machine: FakeMachine): Promise<string> {
    const { sections } = await examine(machine, configuration(), { paths: 'not-tried' });
    const texts = sections.flatMap(({ findings }) => findings.map(({ text }) => text));
    return texts.filter((text) => text.startsWith('Path MTU not measured: ')).join();
  }

  test('tries no more when the time for all is up, and finds no fault in that', async () => {
    const machine = new FakeMachine();
    const answer = machine.run.bind(machine);
    machine.run = (tool, args) => {
      machine.timeMs += 30_000;
      return answer(tool, args);
    };
    assert.deepEqual(await problemsOf(machine), []);
    assert.equal(machine.connects.length + machine.pings, 0);
  });

  test('asks from a foreign address whether answers come back, with nat by route only', async () => {
    const machine = new FakeMachine();
    machine.answer = ({ fromAddress }) => (fromAddress === undefined ? 'connected' : 'silence');
    assert.match((await problemsOf(machine, { mode: 'nat' })).join(), /do not come back here \(silence\)/);
    machine.connects.length = 0;
    assert.deepEqual(await problemsOf(machine, { mode: 'nat', returnPath: 'masquerade' }), []);
    assert.equal(machine.connects.length, 1);
  });

  test('says what backends need, and what their firewall must let in', async () => {
    const { sections } = await examine(new FakeMachine(), configuration(), { paths: 'tried' });
    const needs = sections.at(-1)?.findings.flatMap(({ fix = [] }) => fix) ?? [];
    for (const command of [
      'ip address add 10.9.0.10/32 dev lo',
      'sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2',
      'nft add rule inet filter input ip saddr 10.2.0.1 tcp dport { 9000 } accept',
    ]) {
      assert.ok(needs.includes(command), command);
    }
  });
});
