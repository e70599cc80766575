import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { eventually, within } from '../support/deadline.js';
import type { HaportsProcess, RunOptions } from '../support/haports-process.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { parseMetrics } from '../support/metrics-text.js';
import {
  captureConfiguration,
  edge,
  EDGE_BACKENDS,
  EDGE_CLIENT,
  EDGE_FRONTEND,
  EDGE_METRICS,
  EDGE_SPARE_FRONTEND,
  FAMILIES,
  type ConfigurationPlan,
} from '../support/topologies.js';
import { makeFlows, names, type Answer, type Flow, type Traffic } from '../support/traffic.js';

const PORTS = [1, 80, 443, 1200, 1600, 2400, 8000, 61_000, 65_535];
/** All take seconds at each start, and are the matter of capture-ports.test.ts. */
const LISTEN = campaign({ share: { listenPorts: '1-2500,7700-8000,61000,65535' }, whole: {} });
const BACKENDS = [...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]];
const HUB = EDGE_FRONTEND[4];
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

/** Without a worker, which is the matter of those for both families, of capture-ports.test.ts and others. */
const captured = (capture: object = {}, { rule, dataPlane, ...plan }: ConfigurationPlan = {}) =>
  captureConfiguration(capture, {
    ...{ rule: { ...LISTEN, ...rule }, dataPlane: { workers: 0, ...dataPlane } },
    ...plan,
  });

describe('life cycle of capture', { skip: whyNoNamespaces('setpriv', 'curl') }, () => {
  const lab = useLab(edge());
  const { c1, lb, be } = lab.hosts;
  const started = new Set<HaportsProcess>();
  let client: Traffic;
  let sourcePort = 10_000;

  before(async () => {
    await be.serve({ addresses: BACKENDS, ports: PORTS });
    client = c1.traffic();
  });
  // What a failed test has left running must not fail the next one.
  afterEach(async () => {
    for (const each of started)
      if (each.child.exitCode === null && each.child.signalCode === null) await each.stop();
    started.clear();
  });

  async function start(configuration: object, options: RunOptions = {}): Promise<HaportsProcess> {
    const haports = await lb.haports(configuration, options);
    started.add(haports);
    return haports;
  }

  /** One flow a port and protocol from c1, each with a source port of its own. */
  function flowsTo(
    host: string,
    ports: readonly number[],
    protocols: readonly Flow['protocol'][] = ['tcp', 'udp'],
  ) {
    const source = EDGE_CLIENT.c1[host.includes(':') ? 6 : 4];
    return protocols.flatMap((protocol) => {
      sourcePort += ports.length;
      const first = sourcePort - ports.length;
      return makeFlows(ports.length, { protocol, host, port: ports, source, sourcePort: first });
    });
  }

  const ask = (...flows: Parameters<typeof flowsTo>): Promise<readonly Answer[]> =>
    client.ask(flowsTo(...flows));
  const askTcp = async (host: string, port: number) => names(await ask(host, [port], ['tcp']));

  async function assertServes(haports: HaportsProcess, host: string, ports: readonly number[] = PORTS) {
    const flows = flowsTo(host, ports);
    for (const [index, answer] of (await client.ask(flows)).entries()) {
      const { protocol, port } = flows[index]!;
      const what = `${protocol} ${host} ${port}: ${JSON.stringify(answer)}\n${haports.log()}`;
      assert.equal(answer.port, port, what);
      assert.ok(BACKENDS.includes(answer.by), what);
    }
  }

  /** `nft list ruleset`, without the table named. */
  async function ruleset(without?: string): Promise<string> {
    const text = await lb.must('nft list ruleset');
    const tables = text.split(/^(?=table )/m);
    return tables
      .filter((table) => without === undefined || !table.startsWith(`table ${without} {`))
      .join('');
  }

  /** All that a process of haports may leave behind: tables, addresses, routes, rules. */
  async function kernelState(): Promise<string> {
    const ip = ['address', 'rule', '-6 rule', 'route show table all', '-6 route show table all'];
    const parts = await Promise.all([ruleset(), ...ip.map((command) => lb.ip(command))]);
    // Life times and counters change by themselves.
    return parts.join('\n').replaceAll(/ (expires|age|valid_lft|preferred_lft) \S+| +$/gm, '');
  }

  const metrics = async () => parseMetrics(await c1.must(`curl -sS -m 5 http://${EDGE_METRICS}/metrics`));
  const bothFamilies = captured({}, { families: FAMILIES, dataPlane: { workers: 1 } });

  test('SIGTERM removes tables, addresses, routes and rules', async () => {
    const clean = await kernelState();
    const haports = await start(bothFamilies);
    for (const family of FAMILIES) await assertServes(haports, EDGE_FRONTEND[family]);
    assert.notEqual(await kernelState(), clean);
    assert.equal(await haports.stop(), 0);
    assert.equal(await kernelState(), clean);
  });

  test('kill -9 and a restart with less leave nothing stale, and foreign tables are untouched', async () => {
    await lb.nft(FOREIGN);
    const foreign = await ruleset();
    const clean = await kernelState();
    const untouched = async (when: string): Promise<void> =>
      assert.equal(await ruleset(OWN_TABLE), foreign, when);
    try {
      const first = await start(bothFamilies);
      await assertServes(first, HUB, [80]);
      await untouched('while it runs');
      await first.kill();
      await untouched('after kill -9');
      assert.ok((await ruleset()).includes(OWN_TABLE), 'the killed one has left its table');

      const second = await start(captured({}, { rule: { listenPorts: '80,443' } }));
      await assertServes(second, HUB, [80, 443]);
      await untouched('after a restart');
      assert.deepEqual(await askTcp(HUB, 8000), ['ECONNREFUSED'], 'a port of the first is free again');
      assert.ok(!(await ruleset()).includes(EDGE_FRONTEND[6]), 'nothing of the first frontend is left');
      assert.equal(await second.stop(), 0);
      assert.equal(await kernelState(), clean);
    } finally {
      await lb.nft('delete table ip foreign\ndelete table inet firewall');
    }
  });

  test('excluded ports, ports of other processes and the own metrics stay where they are', async () => {
    const own = await lb.serve({ name: 'own', ports: [22, 7777], addresses: [HUB] });
    await own.serve({ name: 'any', ports: [7788], addresses: ['0.0.0.0'] });
    const haports = await start(captured());
    // It is a server in the balancer's namespace that answers, not a backend.
    const flows = flowsTo(HUB, [22, 7777, 7788]);
    const answers = await client.ask(flows.map((flow) => ({ ...flow, fromAnywhere: flow.port === 7788 })));
    assert.deepEqual(names(answers), ['own', 'own', 'any', 'own', 'own', 'any']);
    assert.deepEqual(
      answers.map(({ port }) => port),
      [22, 7777, 7788, 22, 7777, 7788],
    );
    assert.ok((await metrics()).length > 0);
    await assertServes(haports, HUB, [80, 65_535]);
    assert.match(haports.log(), /7777/, 'a port that is not served is told');
    own.kill();
  });

  test('runs as nobody, given CAP_NET_ADMIN alone', async () => {
    const clean = await kernelState();
    const haports = await start(bothFamilies, { launcher: asNobody('-all,+net_admin') });
    for (const family of FAMILIES) await assertServes(haports, EDGE_FRONTEND[family]);
    assert.equal(await haports.stop(), 0);
    assert.equal(await kernelState(), clean);
  });

  test('without CAP_NET_ADMIN: one clear line and an exit code', async () => {
    const haports = await start(captured(), { launcher: asNobody('-all'), waitFor: 'nothing' });
    assert.equal(await within(haports.exit, 20_000, 'haports to give up'), EXIT_FAILED, haports.log());
    const lines = haports.log().split('\n');
    assert.equal(lines.filter((line) => line.includes('CAP_NET_ADMIN')).length, 1, haports.log());
  });

  test('without CAP_NET_ADMIN, with the fallback bind: serves from a socket a port', async () => {
    const configuration = captured({ fallback: 'bind' }, { rule: { listenPorts: '8000-8099' } });
    const haports = await start(configuration, { launcher: asNobody('-all') });
    await assertServes(haports, HUB, [8000]);
    assert.match(haports.log(), /CAP_NET_ADMIN/);
    assert.ok(!(await ruleset()).includes(OWN_TABLE));
  });

  test('a reload adds and removes ports and frontends, and no connection is lost', async () => {
    const configurationOf = (listenPorts: string, frontends: readonly string[]): object => ({
      ...captured(),
      frontends: frontends.map((address, index) => ({ name: `hub${index}`, address })),
      rules: frontends.map((_, index) => ({
        ...{ name: `rule${index}`, frontend: `hub${index}`, backendPool: 'v4' },
        ...{ haPorts: true, listenPorts },
      })),
    });
    const haports = await start(configurationOf('1000-1999', [HUB]));
    const held = c1.traffic();
    const before = await held.open(flowsTo(HUB, Array<number>(50).fill(1600), ['tcp']));
    assert.ok(before.every(({ by }) => BACKENDS.includes(by)));

    const wider = await haports.reload(configurationOf('1500-2500', [HUB, EDGE_SPARE_FRONTEND]));
    assert.equal(wider.status, 200, JSON.stringify(wider.body));
    assert.deepEqual(await held.again(), before);
    for (const host of [HUB, EDGE_SPARE_FRONTEND]) await assertServes(haports, host, [1600, 2400]);
    assert.deepEqual(await askTcp(HUB, 1200), ['ECONNREFUSED'], 'a port that was removed');

    const narrower = await haports.reload(configurationOf('1500-2500', [HUB]));
    assert.equal(narrower.status, 200, JSON.stringify(narrower.body));
    assert.deepEqual(await held.again(), before);
    assert.ok(!(await ruleset()).includes(EDGE_SPARE_FRONTEND), 'a frontend that was removed');
    await assertServes(haports, HUB, [1600]);
  });

  describe('of one that serves', () => {
    let haports: HaportsProcess;
    before(async () => {
      haports = await lb.haports(captured());
    });
    after(() => haports.stop());

    test('nft flush ruleset from outside is repaired, and told in status and metrics', async (context) => {
      const held = c1.traffic();
      const before = await held.open(flowsTo(HUB, [80, 443], ['tcp']));
      await lb.nft('flush ruleset');
      const flushedAtMs = performance.now();
      const isBack = async () => (await ruleset()).includes(OWN_TABLE);
      await eventually(isBack, REPAIR_MS, `the table to be back:\n${haports.log()}`);
      context.diagnostic(`repaired after ${Math.round(performance.now() - flushedAtMs)} ms`);
      assert.deepEqual(await held.again(), before, 'connections that were open go on');
      await assertServes(haports, HUB);
      // The table is there a moment before the process has looked at it.
      await eventually(
        async () => {
          const { kernel } = await haports.get<{ kernel?: { state: string; repairs: number } }>('/v1/status');
          return kernel?.state === 'in-place' && kernel.repairs === 1;
        },
        REPAIR_MS,
        'one repair to be told',
      );
      const repairs = (await metrics()).filter(({ name }) => /^haports_kernel.*repair/.test(name));
      assert.deepEqual(
        repairs.map(({ value }) => value),
        [1],
      );
    });

    test('a second process of the same instance is refused, and disturbs nothing', async () => {
      const before = await kernelState();
      const other = captured({ port: 62_000 }, { top: { metrics: { listen: '127.0.0.1:9903' } } });
      const second = await start(other, { waitFor: 'nothing' });
      assert.equal(await within(second.exit, 20_000, 'the second to give up'), EXIT_FAILED, second.log());
      assert.match(second.log(), /instance/);
      assert.equal(await kernelState(), before);
      await assertServes(haports, HUB);
    });

    test('two instances serve side by side, and each removes only what is its own', async () => {
      const before = await kernelState();
      const top = {
        frontends: [{ name: 'hub4', address: EDGE_SPARE_FRONTEND }],
        metrics: { listen: `${EDGE_SPARE_FRONTEND}:9902` },
      };
      const second = await start(captured({ port: 62_000 }, { dataPlane: { instance: 'second' }, top }));
      // It listens there itself, on every address of the machine: so it is not the second's to take.
      const free = PORTS.filter((port) => port !== 61_000);
      await assertServes(second, EDGE_SPARE_FRONTEND, free);
      await assertServes(haports, HUB);
      assert.equal(await second.stop(), 0);
      assert.equal(await kernelState(), before);
      await assertServes(haports, HUB);
    });
  });
});
