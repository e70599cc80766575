import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import type { FlowList, RuleView } from '../../src/api/views.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { useLab, whyNoNamespaces, type Host } from '../support/lab.js';
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
/** Of all 65,535; the metrics port is on the frontend's address, and 22 is excluded by default. */
const PORTS = randomPorts(2000, { always: [1, CAPTURE_PORT, 65_535], never: [22, 9902] });
const PORTS6 = PORTS.slice(0, 200);
/** Both clients use these source ports: only the address tells them apart. */
const FIRST_SOURCE_PORT = 20_000;

/** An event of conntrack takes less, on a busy machine too. */
const EVENT_MS = 600;

/** By number of workers, the families and ports that both clients ask. */
const CASES: Readonly<
  Record<number, readonly { readonly family: Family; readonly ports: readonly number[] }[]>
> = {
  0: [],
  1: [{ family: 4, ports: PORTS }],
  2: [
    { family: 4, ports: PORTS },
    { family: 6, ports: PORTS6 },
  ],
};

describe('capture of all ports', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(edge());
  const { lb, be } = lab.hosts;
  const clients = new Map<string, Traffic>();
  /** Which backend each flow belongs to: what `explain` says, which has oracles of its own. */
  const expected = new Map<string, string>();

  before(async () => {
    await be.serve({ addresses: EDGE_BACKENDS[4], ports: PORTS });
    await be.serve({ addresses: EDGE_BACKENDS[6], ports: PORTS6 });
    for (const name of [...EDGE_CLIENTS, 'lb'] as const) clients.set(name, lab.host(name).traffic());
  });

  for (const [workers, cases] of Object.entries(CASES)) {
    describe(`${workers} workers`, () => {
      const seen = { arrivals: 0 };
      let haports: HaportsProcess;
      before(async () => {
        const plan = { families: FAMILIES, dataPlane: { workers: Number(workers) } };
        haports = await lb.haports(captureConfiguration({ port: CAPTURE_PORT }, plan));
      });
      // The next test uses the same source ports, and starts afresh.
      afterEach(() => lb.run('conntrack -F'));
      after(() => haports.stop());

      for (const { family, ports } of cases) {
        test(`${ports.length} ports of IPv${family}, TCP and UDP, two clients: 0 wrong, 0 lost`, async (context) => {
          const asked = EDGE_CLIENTS.map((client) => flowsTo(EDGE_CLIENT[client][family], ports));
          const flows = asked.flat();
          await explainAll(haports, flows);
          const startedAtMs = performance.now();
          // Both clients at the same time.
          const answers = (
            await Promise.all(EDGE_CLIENTS.map((client, index) => clients.get(client)!.ask(asked[index]!)))
          ).flat();
          context.diagnostic(`in ${((performance.now() - startedAtMs) / 1000).toFixed(1)} s`);
          assertPorts(flows, answers);
          const wrong = flows.filter((flow, index) => answers[index]?.by !== expected.get(keyOf(flow)));
          assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${flows.length} at another backend`);
          const shares = tally(names(answers));
          for (const backend of EDGE_BACKENDS[family]) {
            assert.ok((shares[backend] ?? 0) > flows.length / 5, JSON.stringify(shares));
          }
        });
      }

      async function askAll(from: 'c1' | 'lb'): Promise<void> {
        for (const family of FAMILIES) {
          const source = from === 'c1' ? EDGE_CLIENT.c1[family] : EDGE_FRONTEND[family];
          const flows = flowsTo(source, PORTS6.slice(0, 150), ['tcp']);
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
        const strange = ['127.0.0.1', '::1'];
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
            return drops['unknown-origin'] === before + 2;
          },
          10_000,
          'two drops to be counted',
        ).catch((cause: unknown) => assert.fail(`${String(cause)}: ${JSON.stringify(drops)}`));
      });

      if (workers === '0') return;
      test('another worker serves after one is killed', async () => {
        const [victim] = await haports.workerPids();
        process.kill(victim!, 'SIGKILL');
        await eventually(
          async () => {
            const pids = await haports.workerPids();
            return pids.length === Number(workers) && !pids.includes(victim!);
          },
          30_000,
          'another worker',
        );
        const isServed = async (): Promise<boolean> => {
          const flows = flowsTo(EDGE_CLIENT.c1[4], PORTS6.slice(0, 20), ['tcp']);
          return (await clients.get('c1')!.ask(flows)).every(({ port }) => port !== undefined);
        };
        await eventually(isServed, 30_000, 'the next worker to serve');
        await askAll('c1');
      });
    });
  }

  async function explainAll(haports: HaportsProcess, flows: readonly Flow[]): Promise<void> {
    const unknown = flows.filter((flow) => !expected.has(keyOf(flow))).values();
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        for (const flow of unknown) {
          const [protocol = '', source = '', destination = ''] = keyOf(flow).split(' ');
          const query = new URLSearchParams({ protocol, source, destination });
          const { candidates } = await haports.get<{ candidates: { address: string; chosen: boolean }[] }>(
            `/v1/explain?${query.toString()}`,
          );
          expected.set(keyOf(flow), candidates.find(({ chosen }) => chosen)?.address ?? 'none');
        }
      }),
    );
  }
});

/** Captured UDP finds out by events of conntrack where a flow was sent. */
describe('capture of UDP', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(edge());
  const { c1, lb, be } = lab.hosts;
  const ports = Array.from({ length: 1000 }, (_, n) => 100 + n * 31).filter((port) => port !== 9902);
  const VERBATIM = 9;
  const seen = { arrivals: 0 };
  let client: Traffic;
  let haports: HaportsProcess;

  before(async () => {
    await be.serve({ addresses: [...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]], ports, protocols: ['udp'] });
    const addresses = [...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]];
    await be.serve({ addresses, ports: [VERBATIM], protocols: ['udp'], verbatim: true });
    client = c1.traffic();
    haports = await lb.haports(captureConfiguration({}, { families: FAMILIES }));
  });

  for (const family of FAMILIES) {
    const to = { protocol: 'udp', host: EDGE_FRONTEND[family], source: EDGE_CLIENT.c1[family] } as const;

    async function ask(from: Traffic, flows: readonly Flow[]): Promise<void> {
      assertPorts(flows, await from.ask(flows, { timeoutMs: 5000, atOnce: 200 }));
    }

    test(`IPv${family}: 1,000 ports of one client, and 300 from the same client port, reach their ports`, async () => {
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
      const flows = sizes.map((bytes) => ({ ...to, port: VERBATIM, bytes, verbatim: true }));
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

function keyOf({ protocol, source = '', sourcePort = 0, host, port }: Flow): string {
  const at = (address: string, of: number) =>
    address.includes(':') ? `[${address}]:${of}` : `${address}:${of}`;
  return `${protocol} ${at(source, sourcePort)} ${at(host, port)}`;
}

/** `count` different ports in random order, `always` among them and `never` not. */
function randomPorts(
  count: number,
  choice: { readonly always: readonly number[]; readonly never: readonly number[] },
): readonly number[] {
  const ports = new Set(choice.always);
  while (ports.size < count) {
    const port = 1 + Math.floor(Math.random() * 65_535);
    if (!choice.never.includes(port)) ports.add(port);
  }
  return [...ports];
}
