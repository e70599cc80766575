import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { LiveExplanation, DrainStatus, FlowList } from '../../src/api/views.js';
import type { ReplayReport } from '../../src/whatif/replay.js';
import { campaign } from '../support/campaign.js';
import { haportsHere } from '../support/command-here.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { serveFrontends, SERVER_PORTS } from '../support/kernel-lab.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { parseMetrics, sumMetric } from '../support/metrics-text.js';
import { BACKENDS, CLIENTS, configurationFor, FAMILIES, FRONTEND, HUB, hub } from '../support/topologies.js';
import { makeFlows, names, type Flow, type Traffic } from '../support/traffic.js';

const AT_ONCE = 8;
/** That are explained: 200 are live, the others new. */
const FLOWS = campaign({ share: 400, whole: 1000 });

const skip = whyNoNamespaces('curl');

/** The commands that people use on the userspace plane, on the kernel's. */
describe('flows, top, explain, drain, replay and metrics of mode nat', { skip }, () => {
  const lab = useLab(hub('through'));
  let opener: Traffic;
  let client: Traffic;
  let haports: HaportsProcess;
  let folder: string;
  const kept = FAMILIES.flatMap((family) =>
    makeFlows(100, {
      ...{ host: FRONTEND[family], port: 443, source: CLIENTS[family][0]! },
      sourcePort: 30_000 + 100 * FAMILIES.indexOf(family),
    }),
  );
  /** By source port, who answered. */
  const truth = new Map<number, string>();

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-flows-'));
    await Promise.all(BACKENDS.map((name) => serveFrontends(lab.host(name), SERVER_PORTS)));
    opener = lab.host('client').traffic();
    client = lab.host('client').traffic();
    const base = configurationFor(HUB, {
      families: FAMILIES,
      dataPlane: { kind: 'kernel', kernel: { mode: 'nat', manageSysctls: true, onStop: 'keep' } },
      rule: { idleTimeout: { tcp: '100s' } },
      top: {
        seed: 11,
        flowLog: { file: join(folder, 'flow.log') },
        metrics: { listen: '127.0.0.1:9902' },
        logging: { format: 'json' },
      },
    });
    haports = await lab.host('lb').haports(base);
    const answers = await opener.open(kept);
    for (const [index, { sourcePort = 0 }] of kept.entries()) truth.set(sourcePort, answers[index]!.by);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** A few at a time, as the admin API takes them. */
  async function explainAll(flows: readonly Flow[]): Promise<LiveExplanation[]> {
    const explained: LiveExplanation[] = [];
    for (let first = 0; first < flows.length; first += AT_ONCE) {
      const some = flows
        .slice(first, first + AT_ONCE)
        .map(({ protocol, source = '', sourcePort, host, port }) => {
          const at = (address: string): string => (address.includes(':') ? `[${address}]` : address);
          const ends = { source: `${at(source)}:${sourcePort}`, destination: `${at(host)}:${port}` };
          return haports.get<LiveExplanation>(
            `/v1/explain?${new URLSearchParams({ protocol, ...ends }).toString()}`,
          );
        });
      explained.push(...(await Promise.all(some)));
    }
    return explained;
  }

  async function cli(command: string): Promise<string> {
    const { code, stdout, stderr } = await haportsHere([...command.split(' '), '--socket', haports.socket]);
    assert.equal(code, 0, `haports ${command}: ${stderr}`);
    return stdout;
  }

  const flowsOf = async (filter = ''): Promise<FlowList> =>
    JSON.parse(await cli(`flows --json --limit 1000${filter}`)) as FlowList;
  const nameOf = (backendId = ''): string => `b${backendId.at(-1)}`;

  test('haports flows lists what the kernel has, with backend, bytes and state', async () => {
    const established = async () => (await flowsOf(' --state established')).flows.length === 200;
    await eventually(established, 10_000, 'all flows');
    await opener.again();
    const { flows } = await flowsOf();
    assert.equal(flows.length, 200);
    const wrong = flows.filter(({ tuple, backendId }) => nameOf(backendId) !== truth.get(tuple.sourcePort));
    assert.deepEqual(wrong, []);
    assert.ok(
      flows.every(({ bytesToBackend, bytesToClient }) => bytesToBackend > 100 && bytesToClient > 100),
    );
    const text = await cli('flows --rule all6 --backend v6/b1');
    assert.match(text, /\[fd01::2\]:30\d\d\d/);
    assert.doesNotMatch(text, /10\.1\.0\.2/);
  });

  test(`haports explain agrees with the kernel for ${FLOWS} flows, live and new`, async () => {
    const count = (FLOWS - kept.length) / FAMILIES.length;
    const fresh = FAMILIES.flatMap((family, index) =>
      makeFlows(count, {
        ...{ protocol: ['tcp', 'udp'], host: FRONTEND[family], port: 80 },
        ...{ source: CLIENTS[family].slice(1), sourcePort: 20_000 + count * index },
      }),
    );
    // What is new is explained before it comes.
    const explained = await explainAll(fresh);
    const answers = names(await client.ask(fresh));
    const chosen = explained.map(({ candidates }) => candidates.find((one) => one.chosen)?.name);
    assert.deepEqual(
      fresh.filter((_, index) => chosen[index] !== answers[index]),
      [],
    );
    const live = await explainAll(kept);
    const disagreeing = live.filter(
      ({ flow, agrees }, index) =>
        agrees !== true || nameOf(flow?.backendId) !== truth.get(kept[index]?.sourcePort ?? 0),
    );
    assert.deepEqual(
      disagreeing.map(({ verdict }) => verdict),
      [],
    );
    const text = await cli(`explain tcp 10.1.0.2:30000 ${FRONTEND[4]}:443`);
    assert.match(text, /jhash/);
    assert.match(text, new RegExp(truth.get(30_000) ?? 'none'));
  });

  test('haports top and status show and count live flows', async () => {
    assert.match(await cli('top --json'), /"flowsActive":\s*[1-9]/);
    const { traffic } = JSON.parse(await cli('status --json')) as { traffic: { flowsActive: number } };
    assert.ok(traffic.flowsActive >= 200, JSON.stringify(traffic));
  });

  test('metrics count flows, bytes, clients and the entries of conntrack', async () => {
    const lines = parseMetrics(await lab.host('lb').must('curl -sS http://127.0.0.1:9902/metrics'));
    const total = (name: string, labels?: Record<string, string>): number => sumMetric(lines, name, labels);
    assert.ok(total('haports_flows_opened_total') >= FLOWS);
    assert.equal(total('haports_flows_opened_total', { protocol: 'udp' }), (FLOWS - kept.length) / 2);
    assert.ok(total('haports_flow_bytes_total', { direction: 'to_client', rule: 'all6' }) > 10_000);
    assert.ok(total('haports_conntrack_entries') >= 200);
    assert.ok(total('haports_conntrack_limit') > 1000);
    assert.equal(total('haports_data_path_availability_ratio', { frontend: 'hub4' }), 1);
  });

  test('the flow log says of flows that come while the pool changes why they are where they are', async () => {
    let count = 0;
    const askSome = async (): Promise<void> => {
      const to = { host: FRONTEND[4], port: 8080, source: CLIENTS[4][2]! };
      const answers = names(
        await client.ask(makeFlows(50, { ...to, sourcePort: 50_000 + (count % 10_000) })),
      );
      assert.deepEqual(
        answers.filter((answer) => !/^b[123]$/.test(answer)),
        [],
      );
      count += 50;
    };
    for (const name of ['b2', 'b3', 'b2', 'b1']) {
      for (const adminState of ['down', 'none']) {
        // Flows come before, while and after it changes.
        const asked = askSome();
        await haports.must('PUT', `/v1/backends/v4/${name}/admin-state`, { adminState });
        await asked;
        await askSome();
      }
    }
    assert.ok(count > 200, `${count} flows`);
  });

  test('haports drain counts down as its flows end, and the flow log replays', async () => {
    assert.ok((await flowsOf(' --backend v4/b1')).flows.length > 10);
    const drain = async (how: string): Promise<number> => {
      const { flows } = JSON.parse(await cli(`drain v4/b1 ${how} --json`)) as DrainStatus;
      return flows.tcp + flows.udp;
    };
    assert.ok((await drain('--deadline 1m --then reset')) > 10);
    // New flows go elsewhere while those that it has stay.
    const to = { host: FRONTEND[4], port: 80, source: CLIENTS[4][3]! };
    const others = names(await client.ask(makeFlows(100, { ...to, sourcePort: 40_000 })));
    assert.deepEqual(new Set(others), new Set(['b2', 'b3']));
    const asked = names(await opener.again());
    assert.deepEqual(
      asked,
      kept.map(({ sourcePort }) => truth.get(sourcePort ?? 0)),
    );
    await drain('--deadline 1s --then reset');
    await eventually(async () => (await drain('--show')) === 0, 15_000, 'the drain to end its flows');
    await haports.stop();
    const { code, stdout } = await haportsHere(['replay', join(folder, 'flow.log'), '--json']);
    const report = JSON.parse(stdout) as ReplayReport;
    assert.deepEqual(report.differences, []);
    assert.equal(code, 0);
    assert.ok(report.checked >= FLOWS + 100, JSON.stringify(report));
    assert.equal(report.notChecked.pinned, 0);
  });
});
