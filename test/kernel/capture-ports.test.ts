import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { randomPorts, reachedBy, type AskedFlow, type FlowAnswer } from '../support/capture-flows.js';
import {
  BACKENDS,
  captureConfig,
  CaptureLab,
  CLIENT_ADDRESS,
  CLIENTS,
  FRONTEND,
  type CapturedHaports,
  type ClientName,
} from '../support/capture-lab.js';
import { whyNoNamespaces } from '../support/namespaces.js';

/** Of all 65,535; the metrics port is on the frontend's address, and 22 is excluded by default. */
const PORTS = randomPorts(2000, { always: [1, 61_000, 65_535], never: [22, 9902] });
const PORTS6 = PORTS.slice(0, 200);
/** Both clients use these source ports: only the address tells them apart. */
const FIRST_SOURCE_PORT = 20_000;
const CAPTURE_PORT = 61_000;

void describe('capture of all ports', { skip: whyNoNamespaces() }, () => {
  let lab: CaptureLab;
  /** Which backend each flow belongs to: what `explain` says, which has oracles of its own. */
  const expected = new Map<string, string>();

  before(async () => {
    lab = await CaptureLab.open();
    await lab.startBackends(PORTS, BACKENDS[4]);
    await lab.startBackends(PORTS6, BACKENDS[6]);
  });
  after(() => lab.close());

  for (const workers of [1, 2]) {
    void test(
      `${workers} workers: 2,000 ports, TCP and UDP, from two clients: 0 wrong, 0 lost`,
      { timeout: 120_000 },
      async (context) => {
        const flows = flowsTo(4, PORTS);
        const { answers, seconds } = await askThrough(workers, flows);
        context.diagnostic(`${flows.length} flows in ${seconds.toFixed(1)} s`);
        verify(flows, answers, BACKENDS[4]);
      },
    );
  }
  void test('IPv6: 200 ports, TCP and UDP, from two clients: 0 wrong, 0 lost', async (context) => {
    const flows = flowsTo(6, PORTS6);
    const { answers, seconds } = await askThrough(2, flows);
    context.diagnostic(`${flows.length} flows in ${seconds.toFixed(1)} s`);
    verify(flows, answers, BACKENDS[6]);
  });

  /** Every flow once, both clients at the same time; and asks `explain` where each belongs. */
  async function askThrough(
    workers: number,
    flows: readonly AskedFlow[],
  ): Promise<{ readonly answers: ReadonlyMap<AskedFlow, FlowAnswer>; readonly seconds: number }> {
    const configuration = captureConfig({ port: CAPTURE_PORT }, { families: [4, 6], dataPlane: { workers } });
    const haports = await lab.start(configuration);
    try {
      await explainAll(haports, flows);
      const startedAtMs = performance.now();
      const answers = new Map<AskedFlow, FlowAnswer>();
      await Promise.all(
        CLIENTS.map(async (client) => {
          const addresses: readonly string[] = Object.values(CLIENT_ADDRESS[client]);
          const own = flows.filter(({ source }) => addresses.includes(source));
          const given = await lab.ask(client, own);
          own.forEach((flow, index) => answers.set(flow, given[index] ?? { error: 'no answer' }));
        }),
      );
      return { answers, seconds: (performance.now() - startedAtMs) / 1000 };
    } catch (error) {
      throw new Error(`haports said:\n${haports.log()}`, { cause: error });
    } finally {
      await haports.stop();
      // The next run uses the same source ports, and starts afresh.
      await lab.spaces.run('lb', 'conntrack', ['-F']);
    }
  }

  async function explainAll(haports: CapturedHaports, flows: readonly AskedFlow[]): Promise<void> {
    const unknown = flows.filter((flow) => !expected.has(keyOf(flow))).values();
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        for (const flow of unknown) {
          const [source, destination] = endsOf(flow);
          const query = new URLSearchParams({ protocol: flow.protocol, source, destination });
          const { candidates } = await haports.get<{
            candidates: { address: string; chosen: boolean }[];
          }>(`/v1/explain?${query.toString()}`);
          expected.set(keyOf(flow), candidates.find(({ chosen }) => chosen)?.address ?? 'none');
        }
      }),
    );
  }

  function verify(
    flows: readonly AskedFlow[],
    answers: ReadonlyMap<AskedFlow, FlowAnswer>,
    backends: readonly string[],
  ): void {
    const shares = new Map<string, number>();
    const wrong: string[] = [];
    const lost: string[] = [];
    for (const flow of flows) {
      const answer = answers.get(flow);
      const reached = reachedBy(answer);
      if (answer === undefined || 'error' in answer || reached === undefined) {
        lost.push(`${keyOf(flow)}: ${JSON.stringify(answer)}`);
        continue;
      }
      const backend = expected.get(keyOf(flow));
      const from = `${flow.destination} ${flow.port}`;
      if (reached.backend !== backend || reached.port !== flow.port || answer.from !== from) {
        wrong.push(`${keyOf(flow)}: expected ${backend}, got ${JSON.stringify(answer)}`);
      }
      shares.set(reached.backend, (shares.get(reached.backend) ?? 0) + 1);
    }
    assert.deepEqual(
      { wrong: wrong.length, lost: lost.length },
      { wrong: 0, lost: 0 },
      [...wrong.slice(0, 3), ...lost.slice(0, 3)].join('\n'),
    );
    for (const backend of backends) {
      const share = shares.get(backend) ?? 0;
      assert.ok(share > flows.length / 5, `${backend} got ${share} of ${flows.length} flows`);
    }
  }
});

/** Each port over TCP and UDP from each client; the clients use the same source ports. */
function flowsTo(family: 4 | 6, ports: readonly number[]): readonly AskedFlow[] {
  return CLIENTS.flatMap((client: ClientName) =>
    ports.flatMap((port, index) =>
      (['tcp', 'udp'] as const).map((protocol) => ({
        protocol,
        source: CLIENT_ADDRESS[client][family],
        sourcePort: FIRST_SOURCE_PORT + index,
        destination: FRONTEND[family],
        port,
      })),
    ),
  );
}

function endsOf(flow: AskedFlow): readonly [source: string, destination: string] {
  const at = (address: string, port: number): string =>
    address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  return [at(flow.source, flow.sourcePort), at(flow.destination, flow.port)];
}

function keyOf(flow: AskedFlow): string {
  return [flow.protocol, ...endsOf(flow)].join(' ');
}
