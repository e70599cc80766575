import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { reachedBy, type AskedFlow, type FlowAnswer } from '../support/capture-flows.js';
import {
  BACKENDS,
  captureConfig,
  CaptureLab,
  CLIENT_ADDRESS,
  FRONTEND,
  METRICS,
  OTHER_FRONTEND,
  type CapturedHaports,
  type LaunchOptions,
} from '../support/capture-lab.js';
import { eventually, within } from '../support/deadline.js';
import { whyNoNamespaces } from '../support/namespaces.js';

const PORTS = [1, 80, 443, 1200, 1600, 2400, 8000, 61_000, 65_535];
const OWN_TABLE = 'inet haports';
/** Time in which a table that somebody has removed must be back. */
const REPAIR_MS = 5000;
const [EXIT_FAILED, NOBODY] = [1, '65534'];
/** As nobody; `capabilities` as setpriv(1) takes them. */
const asNobody = (capabilities: string): readonly string[] => [
  ...['setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups'],
  ...[`--inh-caps=${capabilities}`, `--ambient-caps=${capabilities}`, `--bounding-set=${capabilities}`],
];

/** What an administrator may have had before; nothing in it changes by itself. */
const FOREIGN = `
table ip foreign {
  map ports { type inet_service : ipv4_addr
    elements = { 4444 : 10.50.3.11 } }
  chain steer { type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.50.3.1 dnat to tcp dport map @ports
  }
}
table inet firewall {
  chain input { type filter hook input priority filter; policy accept;
    tcp dport 4445 drop
  }
}
`;

void describe('life cycle of capture', { skip: whyNoNamespaces('perl', 'setpriv', 'curl') }, () => {
  let lab: CaptureLab;
  const started = new Set<CapturedHaports>();
  let nextSourcePort = 10_000;

  before(async () => {
    lab = await CaptureLab.open();
    await lab.startBackends(PORTS, [...BACKENDS[4], ...BACKENDS[6]]);
  });
  // What a failed test has left running must not fail the next one.
  afterEach(async () => {
    for (const each of started) {
      if (each.child.exitCode === null && each.child.signalCode === null) await each.stop();
    }
    started.clear();
  });
  after(() => lab.close());

  async function start(configuration: object, options: LaunchOptions = {}): Promise<CapturedHaports> {
    const haports = await lab.start(configuration, options);
    started.add(haports);
    return haports;
  }

  /** One flow a port and protocol from c1, each with a source port of its own. */
  async function ask(
    destination: string,
    ports: readonly number[],
    protocols: readonly AskedFlow['protocol'][] = ['tcp', 'udp'],
  ): Promise<readonly { readonly flow: AskedFlow; readonly answer: FlowAnswer | undefined }[]> {
    const flows = ports.flatMap((port) => protocols.map((protocol) => flowTo(destination, port, protocol)));
    const answers = await lab.ask('c1', flows, { timeoutMs: 3000 });
    return flows.map((flow, index) => ({ flow, answer: answers[index] }));
  }

  function flowTo(destination: string, port: number, protocol: AskedFlow['protocol']): AskedFlow {
    const source = CLIENT_ADDRESS.c1[destination.includes(':') ? 6 : 4];
    return { protocol, source, sourcePort: nextSourcePort++, destination, port };
  }

  async function assertServes(destination: string, ports: readonly number[], log = ''): Promise<void> {
    for (const { flow, answer } of await ask(destination, ports)) {
      const what = `${flow.protocol} ${destination} ${flow.port}: ${JSON.stringify(answer)}\n${log}`;
      const reached = reachedBy(answer);
      assert.equal(reached?.port, flow.port, what);
      assert.ok(
        [...BACKENDS[4], ...BACKENDS[6]].some((address) => address === reached.backend),
        what,
      );
    }
  }

  const both = captureConfig({}, { families: [4, 6] });

  void test('SIGTERM removes tables, addresses, routes and rules', async () => {
    const clean = await lab.kernelState();
    const haports = await start(both);
    await assertServes(FRONTEND[4], PORTS, haports.log());
    await assertServes(FRONTEND[6], PORTS, haports.log());
    assert.notEqual(await lab.kernelState(), clean);
    assert.equal(await haports.stop(), 0);
    assert.equal(await lab.kernelState(), clean);
  });

  void test('kill -9 and a restart with less leave nothing stale, and foreign tables are untouched', async () => {
    await lab.spaces.nft('lb', FOREIGN);
    const foreign = await lab.ruleset();
    const clean = await lab.kernelState();
    const untouched = async (when: string): Promise<void> =>
      assert.equal(await lab.ruleset([OWN_TABLE]), foreign, when);
    try {
      const first = await start(both);
      await assertServes(FRONTEND[4], [80], first.log());
      await untouched('while it runs');
      await first.kill();
      await untouched('after kill -9');
      assert.ok((await lab.ruleset()).includes(OWN_TABLE), 'the killed one has left its table');

      const second = await start(captureConfig({}, { rule: { listenPorts: '80,443' } }));
      await assertServes(FRONTEND[4], [80, 443], second.log());
      await untouched('after a restart');
      const [gone] = await ask(FRONTEND[4], [8000], ['tcp']);
      assert.match(JSON.stringify(gone?.answer), /ECONNREFUSED/, 'a port of the first is free again');
      assert.ok(!(await lab.ruleset()).includes(FRONTEND[6]), 'nothing of the first frontend is left');
      assert.equal(await second.stop(), 0);
      assert.equal(await lab.kernelState(), clean);
    } finally {
      await lab.spaces.nft('lb', 'delete table ip foreign\ndelete table inet firewall');
    }
  });

  void test('excluded ports, ports of other processes and the own metrics stay where they are', async () => {
    const ssh = await lab.startEcho('lb', [22, 7777], [FRONTEND[4]]);
    const any = await lab.startEcho('lb', [7788], ['0.0.0.0']);
    try {
      const haports = await start(captureConfig({}));
      for (const { flow, answer } of await ask(FRONTEND[4], [22, 7777, 7788])) {
        // It is a server in the balancer's namespace that answers, not a backend.
        const server = flow.port === 7788 ? '0.0.0.0' : FRONTEND[4];
        const expected = { backend: server, port: flow.port };
        assert.deepEqual(reachedBy(answer), expected, `${flow.protocol} ${JSON.stringify(answer)}`);
      }
      assert.ok((await lab.metrics('c1', METRICS)).length > 0);
      await assertServes(FRONTEND[4], [80, 65_535], haports.log());
      assert.match(haports.log(), /7777/, 'a port that is not served is told');
    } finally {
      for (const child of [ssh, any]) child.kill('SIGKILL');
    }
  });

  void test('nft flush ruleset from outside is repaired, and told in status and metrics', async (context) => {
    const haports = await start(captureConfig({}));
    const held = await lab.hold(
      'c1',
      [80, 443].map((port) => flowTo(FRONTEND[4], port, 'tcp')),
    );
    await lab.spaces.must('lb', 'nft', ['flush', 'ruleset']);
    const flushedAtMs = performance.now();
    await eventually(
      async () => (await lab.ruleset()).includes(OWN_TABLE),
      REPAIR_MS,
      `the table to be back:\n${haports.log()}`,
    );
    context.diagnostic(`repaired after ${Math.round(performance.now() - flushedAtMs)} ms`);
    assert.equal(await held.ask(), 2, 'connections that were open go on');
    await assertServes(FRONTEND[4], PORTS, haports.log());
    // The table is there a moment before the process has looked at it.
    await eventually(
      async () => {
        const { kernel } = await haports.get<{ kernel?: { state: string; repairs: number } }>('/v1/status');
        return kernel?.state === 'in-place' && kernel.repairs === 1;
      },
      REPAIR_MS,
      'one repair to be told',
    );
    const repairs = (await lab.metrics('c1', METRICS)).filter(
      ({ name }) => name.startsWith('haports_kernel') && name.includes('repair'),
    );
    assert.deepEqual(
      repairs.map(({ value }) => value),
      [1],
    );
  });

  void test('runs as nobody, given CAP_NET_ADMIN alone', async () => {
    const clean = await lab.kernelState();
    const haports = await start(captureConfig({}, { families: [4, 6] }), {
      launcher: asNobody('-all,+net_admin'),
    });
    await assertServes(FRONTEND[4], PORTS, haports.log());
    await assertServes(FRONTEND[6], PORTS, haports.log());
    assert.equal(await haports.stop(), 0);
    assert.equal(await lab.kernelState(), clean);
  });

  void test('without CAP_NET_ADMIN: one clear line and an exit code', async () => {
    const haports = await start(captureConfig({}), { launcher: asNobody('-all'), waitFor: 'nothing' });
    assert.equal(await within(haports.exit, 20_000, 'haports to give up'), EXIT_FAILED, haports.log());
    const lines = haports
      .log()
      .split('\n')
      .filter((line) => line.includes('CAP_NET_ADMIN'));
    assert.equal(lines.length, 1, haports.log());
  });

  void test('without CAP_NET_ADMIN, with the fallback bind: serves from a socket a port', async () => {
    const configuration = captureConfig({ fallback: 'bind' }, { rule: { listenPorts: '8000-8099' } });
    const haports = await start(configuration, { launcher: asNobody('-all') });
    await assertServes(FRONTEND[4], [8000], haports.log());
    assert.match(haports.log(), /CAP_NET_ADMIN/);
    assert.ok(!(await lab.ruleset()).includes(OWN_TABLE));
  });

  void test('a reload adds and removes ports and frontends, and no connection is lost', async () => {
    const configOf = (listenPorts: string, frontends: readonly string[]): object => ({
      ...captureConfig({}),
      frontends: frontends.map((address, index) => ({ name: `hub${index}`, address })),
      rules: frontends.map((_, index) => ({
        name: `rule${index}`,
        frontend: `hub${index}`,
        backendPool: 'nvas4',
        haPorts: true,
        listenPorts,
      })),
    });
    const haports = await start(configOf('1000-1999', [FRONTEND[4]]));
    const flows = Array.from({ length: 50 }, () => flowTo(FRONTEND[4], 1600, 'tcp'));
    const held = await lab.hold('c1', flows);

    const wider = await haports.reload(configOf('1500-2500', [FRONTEND[4], OTHER_FRONTEND]));
    assert.equal(wider.status, 200, JSON.stringify(wider.body));
    assert.equal(await held.ask(), flows.length);
    await assertServes(FRONTEND[4], [1600, 2400], haports.log());
    await assertServes(OTHER_FRONTEND, [1600, 2400], haports.log());
    const [removed] = await ask(FRONTEND[4], [1200], ['tcp']);
    assert.match(JSON.stringify(removed?.answer), /ECONNREFUSED/, 'a port that was removed');

    const narrower = await haports.reload(configOf('1500-2500', [FRONTEND[4]]));
    assert.equal(narrower.status, 200, JSON.stringify(narrower.body));
    assert.equal(await held.ask(), flows.length);
    assert.ok(!(await lab.ruleset()).includes(OTHER_FRONTEND), 'a frontend that was removed');
    await assertServes(FRONTEND[4], [1600], haports.log());
  });

  void test('a second process of the same instance is refused, and disturbs nothing', async () => {
    const first = await start(captureConfig({}));
    const before = await lab.kernelState();
    const configuration = captureConfig({ port: 62_000 }, { top: { metrics: { listen: '127.0.0.1:9903' } } });
    const second = await start(configuration, { waitFor: 'nothing' });
    assert.equal(await within(second.exit, 20_000, 'the second to give up'), EXIT_FAILED, second.log());
    assert.match(second.log(), /instance/);
    assert.equal(await lab.kernelState(), before);
    await assertServes(FRONTEND[4], PORTS, first.log());
  });

  void test('two instances serve side by side, and each removes only what is its own', async () => {
    const first = await start(captureConfig({}));
    const before = await lab.kernelState();
    const second = await start(
      captureConfig(
        { port: 62_000 },
        {
          dataPlane: { instance: 'second' },
          top: {
            frontends: [{ name: 'hub4', address: OTHER_FRONTEND }],
            metrics: { listen: `${OTHER_FRONTEND}:9902` },
          },
        },
      ),
    );
    // The first listens there itself, on every address of the machine: so it is not the second's to take.
    const free = PORTS.filter((port) => port !== 61_000);
    await assertServes(OTHER_FRONTEND, free, second.log());
    await assertServes(FRONTEND[4], PORTS, first.log());
    assert.equal(await second.stop(), 0);
    assert.equal(await lab.kernelState(), before);
    await assertServes(FRONTEND[4], PORTS, first.log());
  });
});
