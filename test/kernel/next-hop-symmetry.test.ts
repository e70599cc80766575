import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { nextHopSetup } from '../../src/planes/kernel/ebpf/next-hop.js';
import { ipAddress, parseCidr, type Cidr, type FiveTuple } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { KernelOptions } from '../../src/model/configuration.js';
import { NONE_EXCLUDED } from '../../src/selection/picker.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';
import {
  crossingOf,
  NVA_HOSTS,
  NVAS,
  PROBE_PORT,
  SERVER_PORTS,
  SERVERS,
  SPOKE_BLOCKS,
  SpokeLab,
  SPOKES,
  SPOKE_NAMES,
  type Spoke,
  type NvaRoute,
} from '../support/spoke-lab.js';

const skip = whyNoNamespaces();
const FLOWS = 200;
const BLOCKS: readonly Cidr[] = SPOKE_BLOCKS.flatMap((text) => parseCidr(text) ?? []);

function configuration(family: 4 | 6): object {
  const backends = NVAS.map((name, index) => ({ name, address: `${NVA_HOSTS[family]}${index + 1}` }));
  return {
    seed: 0x12345678,
    frontends: [{ name: 'beyond', address: family === 4 ? '0.0.0.0' : '::' }],
    backendPools: [{ name: 'nvas', backends }],
    rules: [{ name: 'all', frontend: 'beyond', backendPool: 'nvas', haPorts: true }],
  };
}

/** Half of each protocol from either spoke. */
function flowsOf(
  family: 4 | 6,
  count: number,
  firstPort: number,
): Readonly<Record<Spoke, readonly ClientFlow[]>> {
  const from = (here: Spoke, there: Spoke): ClientFlow[] =>
    Array.from({ length: count }, (_, index) => ({
      protocol: index % 2 === 0 ? 'tcp' : 'udp',
      host: SERVERS[there][family],
      port: SERVER_PORTS[index % SERVER_PORTS.length] ?? 0,
      source: SPOKES[here][family][index % 4] ?? '',
      sourcePort: firstPort + index,
    }));
  return { 'spoke-a': from('spoke-a', 'spoke-z'), 'spoke-z': from('spoke-z', 'spoke-a') };
}

function tupleOf(flow: ClientFlow): FiveTuple {
  return {
    protocol: flow.protocol,
    source: ipAddress(flow.source ?? ''),
    sourcePort: flow.sourcePort ?? 0,
    destination: ipAddress(flow.host),
    destinationPort: flow.port,
  };
}

for (const route of ['past', 'through'] as const satisfies readonly NvaRoute[]) {
  describe(`nextHopSetup() with stateful NVAs that send packets on ${route} the balancer`, { skip }, () => {
    let lab: SpokeLab;
    let states: KernelStates;
    let firstPort = 20_000;
    const clients = new Map<Spoke, LabClient>();

    before(async () => {
      states = await KernelStates.create();
      lab = await SpokeLab.create(route);
      for (const spoke of SPOKE_NAMES) clients.set(spoke, lab.client(spoke));
    });
    after(() => lab.close());

    /** Answers that came, and where flows went that a backend was predicted for. */
    async function run(
      family: 4 | 6,
      options: Partial<KernelOptions>,
      timeoutMs = 3000,
    ): Promise<{ answered: number; asked: number; asPredicted: number; twice: number }> {
      const state = states.state(configuration(family), { mode: 'next-hop', spokes: BLOCKS, ...options });
      await lab.load(nextHopSetup(compileProgram(state)));
      await lab.forget();
      await probe(family);
      // Each run has its own ports: nothing that a server remembers is in the way.
      const flows = flowsOf(family, FLOWS, (firstPort += 1000));
      const answers: string[] = [];
      for (const spoke of SPOKE_NAMES) {
        answers.push(
          ...((await clients.get(spoke)?.do({ kind: 'once', flows: flows[spoke], timeoutMs })) ?? []),
        );
      }
      const all = [...flows['spoke-a'], ...flows['spoke-z']];
      const crossed = await lab.crossed();
      const paths = all.map((flow) => crossed.get(crossingOf(flow)) ?? []);
      return {
        asked: all.length,
        answered: all.filter((flow, index) => whoAnswered(answers[index]) === serverOf(flow)).length,
        asPredicted: all.filter((flow, index) => paths[index]?.join() === predicted(state, flow)).length,
        twice: paths.filter((path) => path.length > 1).length,
      };
    }

    /** As probes do, so that their answers are seen. */
    async function probe(family: 4 | 6): Promise<void> {
      const prober = lab.client('lb');
      const answers = await prober.once(
        ...NVAS.map((_, index) => ({
          protocol: 'tcp' as const,
          host: `${NVA_HOSTS[family]}${index + 1}`,
          port: PROBE_PORT,
        })),
      );
      assert.deepEqual(answers.map(whoAnswered), NVAS);
    }

    function predicted(state: ForwardingState, flow: ClientFlow): string {
      const result = states.picker.pick(state, tupleOf(flow), NONE_EXCLUDED);
      if (result.kind !== 'picked') return result.kind;
      return state.views[result.viewIndex]?.backends[result.backendIndex]?.backend.name ?? '';
    }

    for (const family of [4, 6] as const) {
      for (const flowState of ['pinned', 'stateless'] as const) {
        test(`all flows answered and where explain says, ${flowState}, IPv${family}`, async () => {
          assert.deepEqual(await run(family, { flowState }), {
            ...{ asked: 2 * FLOWS, answered: 2 * FLOWS, asPredicted: 2 * FLOWS, twice: 0 },
          });
        });
      }
    }

    if (route === 'through') return;
    test('a hash of each packet by itself, in its own direction, breaks most flows: the control', async () => {
      const { answered, asked } = await run(4, { flowState: 'stateless', spokes: [] }, 300);
      assert.ok(answered < asked / 2, `${answered} of ${asked} answered`);
      assert.ok(
        answered > asked / 5,
        `${answered} of ${asked} answered: about a third meets the same NVA by chance`,
      );
    });

    test('all flows answered without spokes, pinned', async () => {
      const { answered, asked, asPredicted } = await run(4, { spokes: [] });
      assert.deepEqual({ answered, asPredicted }, { answered: asked, asPredicted: asked });
    });
  });
}

/** Servers are named after their spokes. */
function serverOf({ host }: ClientFlow): string {
  return host.startsWith('10.10.') || host.startsWith('fd10:') ? 'spoke-a' : 'spoke-z';
}
