import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ReplayReport } from '../../src/whatif/replay.js';
import type { DrainStatus, FlowList, LiveExplanation } from '../../src/api/views.js';
import { adminApi } from '../support/admin-api.js';
import type { CapturedHaports } from '../support/capture-lab.js';
import { runCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { startInLab } from '../support/lab-haports.js';
import { parseMetrics } from '../support/metrics-text.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';

const MAIN = resolve(process.env['HAPORTS_MAIN'] ?? join('dist', 'main.js'));
const HOSTS = ['11', '12', '13'];
const AT_ONCE = 8;

const pool = (family: 4 | 6) => ({
  name: `v${family}`,
  backends: HOSTS.map((host, index) => ({
    name: `b${index + 1}`,
    address: `${family === 4 ? '10.2.0.' : 'fd02::'}${host}`,
  })),
});

const configuration = (folder: string) => ({
  dataPlane: { kind: 'kernel', kernel: { mode: 'nat', manageSysctls: true, onStop: 'keep' } },
  seed: 11,
  frontends: [
    { name: 'four', address: FRONTEND[4] },
    { name: 'six', address: FRONTEND[6] },
  ],
  backendPools: [pool(4), pool(6)],
  rules: [
    { name: 'four', frontend: 'four', backendPool: 'v4', haPorts: true, idleTimeout: { tcp: '100s' } },
    { name: 'six', frontend: 'six', backendPool: 'v6', haPorts: true },
  ],
  flowLog: { file: join(folder, 'flow.log') },
  metrics: { listen: '127.0.0.1:9902' },
  logging: { format: 'json' },
});

/** The commands that people use on the userspace plane, on the kernel's. */
describe(
  'flows, top, explain, drain, replay and metrics of the kernel data plane',
  { skip: whyNoNamespaces() },
  () => {
    let lab: NatLab;
    let opener: LabClient;
    let client: LabClient;
    let haports: CapturedHaports;
    let folder: string;
    const kept: ClientFlow[] = Array.from({ length: 200 }, (_, index) => ({
      protocol: 'tcp',
      host: FRONTEND[index % 2 === 0 ? 4 : 6],
      port: 443,
      source: CLIENTS[index % 2 === 0 ? 4 : 6][0],
      sourcePort: 30_000 + index,
    }));
    /** By source port, who answered. */
    const truth = new Map<number, string>();

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'haports-flows-'));
      lab = await NatLab.create();
      opener = lab.client();
      client = lab.client();
      haports = await startInLab(lab.namespaces, configuration(folder));
      const answers = await opener.do({ kind: 'open', flows: kept });
      for (const [index, { sourcePort = 0 }] of kept.entries())
        truth.set(sourcePort, whoAnswered(answers[index]));
    });
    after(async () => {
      await haports.kill();
      await lab.close();
      await rm(folder, { recursive: true, force: true });
    });

    /** A few at a time, as the admin API takes them. */
    async function explainAll(paths: readonly string[]): Promise<LiveExplanation[]> {
      const explained: LiveExplanation[] = [];
      for (let first = 0; first < paths.length; first += AT_ONCE) {
        const some = paths.slice(first, first + AT_ONCE);
        explained.push(...(await Promise.all(some.map((path) => haports.get<LiveExplanation>(path)))));
      }
      return explained;
    }

    async function cli(...args: readonly string[]): Promise<string> {
      const { code, stdout, stderr } = await runCommand(process.execPath, [
        MAIN,
        ...args,
        '--socket',
        haports.socket,
      ]);
      assert.equal(code, 0, `haports ${args.join(' ')}: ${stderr}`);
      return stdout;
    }

    const flowsOf = async (...args: readonly string[]): Promise<FlowList> =>
      JSON.parse(await cli('flows', '--json', '--limit', '1000', ...args)) as FlowList;

    test('haports flows lists what the kernel has, with backend, bytes and state', async () => {
      await eventually(
        async () => (await flowsOf('--state', 'established')).flows.length === 200,
        5000,
        'all flows',
      );
      await opener.do({ kind: 'ask' });
      const { flows } = await flowsOf();
      assert.equal(flows.length, 200);
      const wrong = flows.filter(({ tuple, backendId }) => {
        const host = backendId.split(/[.:]/).at(-1) ?? '';
        return `b${HOSTS.indexOf(host) + 1}` !== truth.get(tuple.sourcePort);
      });
      assert.deepEqual(wrong, []);
      assert.ok(
        flows.every(({ bytesToBackend, bytesToClient }) => bytesToBackend > 100 && bytesToClient > 100),
      );
      const text = await cli('flows', '--rule', 'six', '--backend', 'v6/b1');
      assert.match(text, /\[fd01::2\]:30\d\d\d/);
      assert.doesNotMatch(text, /10\.1\.0\.2/);
    });

    test('haports explain agrees with the kernel for 1,000 flows, live and new', async () => {
      const fresh: ClientFlow[] = Array.from({ length: 800 }, (_, index) => ({
        protocol: index % 2 === 0 ? 'tcp' : 'udp',
        host: FRONTEND[index % 4 < 2 ? 4 : 6],
        port: 80,
        source: CLIENTS[index % 4 < 2 ? 4 : 6][1 + (index % 3)] ?? '',
        sourcePort: 20_000 + index,
      }));
      const pathOf = ({ protocol, source = '', sourcePort, host, port }: ClientFlow): string => {
        const at = (address: string): string => (address.includes(':') ? `[${address}]` : address);
        const query = new URLSearchParams({
          ...{ protocol, source: `${at(source)}:${sourcePort}`, destination: `${at(host)}:${port}` },
        });
        return `/v1/explain?${query.toString()}`;
      };
      // What is new is explained before it comes.
      const explained = await explainAll(fresh.map(pathOf));
      const answers = await client.once(...fresh);
      const missed = explained.filter(({ candidates }, index) => {
        return candidates.find(({ chosen }) => chosen)?.name !== whoAnswered(answers[index]);
      });
      assert.deepEqual(
        missed.map(({ tuple }) => tuple),
        [],
      );
      const live = await explainAll(kept.map(pathOf));
      const disagreeing = live.filter(({ flow, agrees }, index) => {
        const host = flow?.backendId.split(/[.:]/).at(-1) ?? '';
        return agrees !== true || `b${HOSTS.indexOf(host) + 1}` !== truth.get(kept[index]?.sourcePort ?? 0);
      });
      assert.deepEqual(
        disagreeing.map(({ verdict }) => verdict),
        [],
      );
      const text = await cli('explain', 'tcp', '10.1.0.2:30000', `${FRONTEND[4]}:443`);
      assert.match(text, /jhash/);
      assert.match(text, new RegExp(truth.get(30_000) ?? 'nobody'));
    });

    test('haports top shows backends and flows', async () => {
      const snapshot = await cli('top', '--json');
      assert.match(snapshot, /"flowsActive":\s*[1-9]/);
    });

    test('haports status counts live flows', async () => {
      const status = JSON.parse(await cli('status', '--json')) as {
        readonly traffic: { readonly flowsActive: number };
      };
      assert.ok(status.traffic.flowsActive >= 200, JSON.stringify(status.traffic));
    });

    test('metrics count flows, bytes, clients and the entries of conntrack', async () => {
      const script =
        "fetch('http://127.0.0.1:9902/metrics').then(async (r) => process.stdout.write(await r.text()))";
      const lines = parseMetrics(await lab.namespaces.must('lb', process.execPath, ['-e', script]));
      const total = (name: string, labels: Readonly<Record<string, string>> = {}): number =>
        lines
          .filter(
            (line) =>
              line.name === name &&
              Object.entries(labels).every(([key, value]) => line.labels[key] === value),
          )
          .reduce((sum, { value }) => sum + value, 0);
      assert.ok(total('haports_flows_opened_total') >= 1000);
      assert.equal(total('haports_flows_opened_total', { protocol: 'udp' }), 400);
      assert.ok(total('haports_flow_bytes_total', { direction: 'to_client', rule: 'six' }) > 10_000);
      assert.ok(total('haports_conntrack_entries') >= 200);
      assert.ok(total('haports_conntrack_limit') > 1000);
      assert.equal(total('haports_data_path_availability_ratio', { frontend: 'four' }), 1);
    });

    test('the flow log says of flows that come while the pool changes why they are where they are', async () => {
      const steps = ['b2', 'b3', 'b2', 'b1'].flatMap((name) => [
        [name, 'down'],
        [name, 'none'],
      ]);
      const toggles = { areDone: false };
      const toggling = (async () => {
        for (const [name = '', adminState = ''] of steps) {
          const path = `/v1/backends/v4/${name}/admin-state`;
          assert.equal((await adminApi(haports.socket, 'PUT', path, { adminState })).status, 204);
          await sleep(300);
        }
        toggles.areDone = true;
      })();
      let count = 0;
      while (!toggles.areDone) {
        const some = Array.from({ length: 50 }, (): ClientFlow => {
          const sourcePort = 50_000 + (count++ % 10_000);
          return { protocol: 'tcp', host: FRONTEND[4], port: 8080, source: CLIENTS[4][2], sourcePort };
        });
        const answers = await client.once(...some);
        assert.ok(
          answers.every((answer) => /^b[123]$/.test(whoAnswered(answer))),
          answers.join(),
        );
      }
      await toggling;
      assert.ok(count > 200, `${count} flows`);
    });

    test('haports drain counts down as its flows end, and the flow log replays', async () => {
      const before = (await flowsOf('--backend', 'v4/b1')).flows;
      assert.ok(before.length > 10);
      const started = JSON.parse(
        await cli('drain', 'v4/b1', '--deadline', '1m', '--then', 'reset', '--json'),
      ) as DrainStatus;
      const left = ({ flows }: DrainStatus): number => flows.tcp + flows.udp;
      assert.ok(left(started) > 10, JSON.stringify(started));
      // New flows go elsewhere while those that it has stay.
      const others = await client.once(
        ...Array.from({ length: 100 }, (_, index): ClientFlow => ({
          ...{
            protocol: 'tcp',
            host: FRONTEND[4],
            port: 80,
            source: CLIENTS[4][3],
            sourcePort: 40_000 + index,
          },
        })),
      );
      assert.ok(
        others.every((answer) => ['b2', 'b3'].includes(whoAnswered(answer))),
        others.join(),
      );
      const asked = await opener.do({ kind: 'ask' });
      assert.ok(
        asked.every((answer, index) => whoAnswered(answer) === truth.get(kept[index]?.sourcePort ?? 0)),
      );
      await cli('drain', 'v4/b1', '--deadline', '1s', '--then', 'reset', '--json');
      await eventually(
        async () => left(JSON.parse(await cli('drain', 'v4/b1', '--show', '--json')) as DrainStatus) === 0,
        15_000,
        'the drain to end its flows',
      );
      await haports.stop();
      const { code, stdout } = await runCommand(process.execPath, [
        MAIN,
        'replay',
        join(folder, 'flow.log'),
        '--json',
      ]);
      const report = JSON.parse(stdout) as ReplayReport;
      assert.deepEqual(report.differences, []);
      assert.equal(code, 0);
      assert.ok(report.checked >= 1100, JSON.stringify(report));
      assert.equal(report.notChecked.pinned, 0);
    });
  },
);
