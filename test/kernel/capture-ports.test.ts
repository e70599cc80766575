import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import type { FlowList, RuleView } from '../../src/api/views.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { useLab, whyNoNamespaces, type Host } from '../support/lab.js';
import { pickedBackend, StateFactory } from '../support/state-factory.js';
import {
  captureConfiguration,
  edge,
  EDGE_BACKENDS,
  EDGE_CLIENT,
  EDGE_CLIENTS,
  EDGE_FRONTEND,
  FAMILIES,
  type Family,
} from '../support/topologies.js';
import { makeFlows, names, tally, type Answer, type Flow, type Traffic } from '../support/traffic.js';

const CAPTURE_PORT = 61_000;
/** Of all 65,535 are not captured: 22, which is excluded by default, and that of the metrics on the frontend's address. */
const LEFT_ALONE = [22, 9902];
/** A port is two bytes of the address that it is steered to: each value of either is among the ports. */
const PORTS = randomPorts(campaign({ share: 0, whole: 2000 }));
const PORTS6 = PORTS.slice(0, 100);
const FEW_PORTS = PORTS.slice(0, 50);
/** Both clients use these source ports: only the address tells them apart. */
const FIRST_SOURCE_PORT = 20_000;

/** An event of conntrack takes less, on a busy machine too. */
const EVENT_MS = 600;

interface Case {
  readonly workers: number;
  readonly families: readonly Family[];
  /** What is captured. @default all ports */
  readonly rule?: object;
  /** The ports that both clients ask. */
  readonly campaigns: readonly { readonly family: Family; readonly ports: readonly number[] }[];
}

const CASES: readonly Case[] = [
  {
    ...{ workers: 0, families: FAMILIES, campaigns: [] },
    rule: campaign({ share: { listenPorts: FEW_PORTS.join() }, whole: {} }),
  },
  ...campaign<readonly Case[]>({
    share: [],
    whole: [{ workers: 1, families: FAMILIES, campaigns: [{ family: 4, ports: PORTS }] }],
  }),
  {
    ...{ workers: 2, families: FAMILIES },
    campaigns: [
      { family: 4, ports: PORTS },
      { family: 6, ports: PORTS6 },
    ],
  },
];

describe('capture of all ports', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(edge());
  const { lb, be } = lab.hosts;
  const clients = new Map<string, Traffic>();
  const configurationOf = ({ workers, families, rule = {} }: Case) =>
    captureConfiguration({ port: CAPTURE_PORT }, { families, rule, dataPlane: { workers } });
  /** The address of the backend that a flow belongs to, by the picker, which has oracles of its own. */
  let backendOf: (flow: Flow) => string;

  before(async () => {
    const state = (await StateFactory.create()).state(configurationOf(CASES.at(-1)!));
    const picker = new Picker(await createHasher());
    backendOf = (flow) => {
      const picked = pickedBackend(picker, state, flow);
      return typeof picked === 'string' ? picked : picked.address.text;
    };
    await be.serve({ addresses: EDGE_BACKENDS[4], ports: PORTS });
    await be.serve({ addresses: EDGE_BACKENDS[6], ports: PORTS6 });
    for (const name of [...EDGE_CLIENTS, 'lb'] as const) clients.set(name, lab.host(name).traffic());
  });

  for (const one of CASES) {
    const { workers, families, campaigns } = one;
    describe(`${workers} workers`, () => {
      const seen = { arrivals: 0 };
      let haports: HaportsProcess;
      before(async () => {
        haports = await lb.haports(configurationOf(one));
      });
      // The next test uses the same source ports, and starts afresh.
      afterEach(() => lb.run('conntrack -F'));
      after(() => haports.stop());

      for (const { family, ports } of campaigns) {
        test(`${ports.length} ports of IPv${family}, TCP and UDP, two clients: 0 wrong, 0 lost`, async (context) => {
          const asked = EDGE_CLIENTS.map((client) => flowsTo(EDGE_CLIENT[client][family], ports));
          const flows = asked.flat();
          const startedAtMs = performance.now();
          // Both clients at the same time.
          const answers = (
            await Promise.all(EDGE_CLIENTS.map((client, index) => clients.get(client)!.ask(asked[index]!)))
          ).flat();
          context.diagnostic(`in ${((performance.now() - startedAtMs) / 1000).toFixed(1)} s`);
          assertPorts(flows, answers);
          const wrong = flows.filter((flow, index) => answers[index]?.by !== backendOf(flow));
          assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${flows.length} at another backend`);
          const shares = tally(names(answers));
          for (const backend of EDGE_BACKENDS[family]) {
            assert.ok((shares[backend] ?? 0) > flows.length / 5, JSON.stringify(shares));
          }
        });
      }

      if (workers === 2) {
        test('each TCP port has an element of its own, and all UDP ports are in the set', async () => {
          const tcp = await lb.must('nft list map inet haports tcp4-hub4');
          const elements = Array.from(tcp.matchAll(/(\d+) : \d+\.\d+\.(\d+)\.(\d+)/g), (found) =>
            found.slice(1).map(Number),
          );
          const captured = Array.from({ length: 65_535 }, (_, index) => index + 1).filter(
            (port) => !LEFT_ALONE.includes(port),
          );
          assert.deepEqual(
            elements.sort(([a = 0], [b = 0]) => a - b),
            captured.map((port) => [port, port >> 8, port & 0xff]),
          );
          const udp = await lb.must('nft list set inet haports udp4-hub4');
          assert.match(udp, /elements = \{ 1-21, 23-9901, 9903-65535 \}/);
        });
      }

      async function askAll(from: 'c1' | 'lb'): Promise<void> {
        for (const family of families) {
          const source = from === 'c1' ? EDGE_CLIENT.c1[family] : EDGE_FRONTEND[family];
          const flows = flowsTo(source, FEW_PORTS, ['tcp']);
          assertPorts(flows, await clients.get(from)!.ask(flows));
        }
      }

      test('ports reach theirs from this machine too', async () => {
        await askAll('c1');
        await askAll('lb');
        assert.deepEqual(await freshDropsOf(haports, seen), {});
      });

      test('the private port is refused, and a connection that has come past the ruleset is reset and counted', async () => {
        const knock = async (host: string): Promise<string> => {
          const [answer] = await clients.get('lb')!.ask([{ protocol: 'tcp', host, port: CAPTURE_PORT }]);
          return answer!.by;
        };
        const before = (await dropsOf(haports))['unknown-origin'] ?? 0;
        // No frontend has these addresses.
        const strange = families.map((family) => ({ 4: '127.0.0.1', 6: '::1' })[family]);
        for (const host of strange) assert.equal(await knock(host), 'ECONNREFUSED');
        for (const host of strange) {
          // Nothing refuses it until the ruleset is repaired.
          const pass = async (): Promise<boolean> => {
            await lb.nft('flush chain inet haports guard');
            return (await knock(host)) === 'ECONNRESET';
          };
          await eventually(pass, 10_000, 'a connection to be reset');
        }
        // They are read once a second at most.
        let drops: Readonly<Record<string, number>> = {};
        await eventually(
          async () => {
            drops = await dropsOf(haports);
            return drops['unknown-origin'] === before + strange.length;
          },
          10_000,
          'the drops to be counted',
        ).catch((cause: unknown) => assert.fail(`${String(cause)}: ${JSON.stringify(drops)}`));
      });

      if (workers === 0) return;
      test('another worker serves after one is killed', async () => {
        const [victim] = await haports.workerPids();
        process.kill(victim!, 'SIGKILL');
        await eventually(
          async () => {
            const pids = await haports.workerPids();
            return pids.length === workers && !pids.includes(victim!);
          },
          30_000,
          'another worker',
        );
        const isServed = async (): Promise<boolean> => {
          const flows = flowsTo(EDGE_CLIENT.c1[4], FEW_PORTS.slice(0, 20), ['tcp']);
          return (await clients.get('c1')!.ask(flows)).every(({ port }) => port !== undefined);
        };
        await eventually(isServed, 30_000, 'the next worker to serve');
        await askAll('c1');
      });
    });
  }
});

/** Captured UDP finds out by events of conntrack where a flow was sent. */
describe('capture of UDP', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(edge());
  const { c1, lb, be } = lab.hosts;
  const ports = Array.from({ length: campaign({ share: 300, whole: 1000 }) }, (_, n) => 100 + n * 31).filter(
    (port) => port !== 9902,
  );
  const VERBATIM = 9;
  const rule = { listenPorts: `${VERBATIM},100-${ports.at(-1)}` };
  const seen = { arrivals: 0 };
  let client: Traffic;
  let haports: HaportsProcess;

  before(async () => {
    await be.serve({ addresses: [...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]], ports, protocols: ['udp'] });
    const addresses = [...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]];
    await be.serve({ addresses, ports: [VERBATIM], protocols: ['udp'], verbatim: true });
    client = c1.traffic();
    haports = await lb.haports(captureConfiguration({}, { families: FAMILIES, rule }));
  });

  for (const family of FAMILIES) {
    const to = { protocol: 'udp', host: EDGE_FRONTEND[family], source: EDGE_CLIENT.c1[family] } as const;

    async function ask(from: Traffic, flows: readonly Flow[]): Promise<void> {
      assertPorts(flows, await from.ask(flows, { timeoutMs: 5000, atOnce: 200 }));
    }

    test(`IPv${family}: ${ports.length} ports of one client, and 300 from the same client port, reach their ports`, async () => {
      await ask(client, makeFlows(ports.length, { ...to, port: ports, sourcePort: 20_000 }));
      await ask(
        client,
        ports.slice(0, 300).map((port) => ({ ...to, port, sourcePort: 33_333 })),
      );
      assert.deepEqual(await freshDropsOf(haports, seen), {});
    });

    test(`IPv${family}: clients on the same machine reach their ports`, async () => {
      const local = ports.slice(0, 50).map((port) => ({ ...to, port, source: to.host, sourcePort: 33_334 }));
      await ask(lb.traffic(), local);
    });

    test(`IPv${family}: datagrams of all sizes pass whole, as first and as later ones`, async () => {
      const rounds = campaign({ share: 1, whole: 40 });
      const sizes = Array<readonly number[]>(rounds).fill([0, 1, 1472, 9000, 65_507]).flat();
      // The system may give a port twice to sockets that share addresses.
      const flows = sizes.map((bytes, index) => {
        return { ...to, port: VERBATIM, sourcePort: 45_000 + index, bytes, verbatim: true };
      });
      const sender = c1.traffic();
      assert.deepEqual(tally(names(await sender.open(flows))), { verbatim: flows.length });
      assert.deepEqual(tally(names(await sender.again())), { verbatim: flows.length });
    });

    test(`IPv${family}: flows go on and new ones come when the events end`, async () => {
      await killFollowers(lb);
      await ask(client, makeFlows(100, { ...to, port: ports.slice(0, 100), sourcePort: 20_000 }));
      for (let n = 0; n < 4; n++) {
        await killFollowers(lb);
        await ask(
          client,
          ports.slice(0, 50).map((port) => ({ ...to, port, sourcePort: 40_000 + n })),
        );
      }
      assert.deepEqual(await freshDropsOf(haports, seen), {});
    });

    test(`IPv${family}: a client port that is used for another port again is a new flow`, async () => {
      await eventually(async () => (await followers(lb)).length > 0, 10_000, 'events to be followed');
      // A client of its own, with no other flows.
      const flow = { ...to, source: EDGE_CLIENT.c2[family], sourcePort: 50_000 };
      const other = lab.host('c2').traffic();
      const flows = async (): Promise<number> => {
        const query = new URLSearchParams({ protocol: 'udp', source: flow.source });
        return (await haports.get<FlowList>(`/v1/flows?${query.toString()}`)).flows.length;
      };
      const forget = async (): Promise<void> => {
        await lb.run(`conntrack -D -f ipv${family} -p udp --orig-port-src ${flow.sourcePort}`);
        await pause(EVENT_MS);
        // A round trip to the worker: it has been told by now of what the control process knows.
        await flows();
      };
      // Events are told from a few milliseconds after the start of who follows them.
      await pause(EVENT_MS);
      await ask(other, [{ ...flow, port: ports[0]! }]);
      for (const port of ports.slice(1, 4)) {
        await forget();
        await ask(other, [{ ...flow, port }]);
      }
      // The same flow again after its entry has gone: it goes on, and is no second one.
      const before = await flows();
      assert.ok(before > 0);
      await forget();
      await ask(other, [{ ...flow, port: ports[3]! }]);
      assert.equal(await flows(), before);
    });
  }
});

/** As dropsOf, once arrivals that came since the last such reading are counted: counts are read once a second at most. */
async function freshDropsOf(haports: HaportsProcess, since: { arrivals: number }) {
  return eventually(
    async () => {
      const rules = await haports.get<readonly RuleView[]>('/v1/rules');
      const arrivals = rules.reduce((sum, rule) => sum + rule.arrivals, 0);
      if (arrivals <= since.arrivals) return undefined;
      since.arrivals = arrivals;
      return dropsOf(haports);
    },
    10_000,
    'arrivals to be counted',
  );
}

/** Connections and datagrams that were dropped, by reason. */
async function dropsOf(haports: HaportsProcess): Promise<Readonly<Record<string, number>>> {
  const sums: Record<string, number> = {};
  for (const { drops } of await haports.get<readonly RuleView[]>('/v1/rules')) {
    for (const [reason, count = 0] of Object.entries(drops)) {
      if (count > 0) sums[reason] = (sums[reason] ?? 0) + count;
    }
  }
  return sums;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Process ids of the children that follow events. */
async function followers(lb: Host): Promise<readonly number[]> {
  const listing = await lb.run('pgrep -f ^conntrack.-E');
  const inside = new Set(lb.pids());
  return listing.stdout
    .split('\n')
    .map(Number)
    .filter((pid) => inside.has(pid));
}

async function killFollowers(lb: Host): Promise<void> {
  for (const pid of await followers(lb)) process.kill(pid, 'SIGKILL');
}

/** Whether each answer is of a backend, and of the port that was asked. */
function assertPorts(flows: readonly Flow[], answers: readonly Answer[]): void {
  const wrong = flows.flatMap((flow, index) =>
    answers[index]?.port === flow.port ? [] : [[flow, answers[index]]],
  );
  assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${flows.length} wrong or lost`);
}

/** Each port over each protocol. */
function flowsTo(
  source: string,
  ports: readonly number[],
  protocols: readonly Flow['protocol'][] = ['tcp', 'udp'],
): readonly Flow[] {
  const host = EDGE_FRONTEND[source.includes(':') ? 6 : 4];
  return protocols.flatMap((protocol) =>
    makeFlows(ports.length, { protocol, host, port: ports, source, sourcePort: FIRST_SOURCE_PORT }),
  );
}

/** In random order: the first and the last, some beside those that are not captured, and each value of either byte. */
function randomPorts(atLeast: number): readonly number[] {
  const edges = [1, 21, 23, 9901, 9903, CAPTURE_PORT, 65_535];
  const lowBytes = shuffled(Array.from({ length: 256 }, (_, byte) => byte));
  const ports = new Set(shuffled([...edges, ...lowBytes.map((low, high) => high * 256 + low)]));
  while (ports.size < atLeast) ports.add(randomInt(1, 65_536));
  return [...ports].filter((port) => port > 0 && !LEFT_ALONE.includes(port));
}

function shuffled(numbers: number[]): readonly number[] {
  for (let last = numbers.length - 1; last > 0; last--) {
    const other = randomInt(last + 1);
    [numbers[last], numbers[other]] = [numbers[other]!, numbers[last]!];
  }
  return numbers;
}
