import { Flow } from '../../../src/flows/flow.js';
import { FlowTable } from '../../../src/flows/flow-table.js';
import type { Limits } from '../../../src/model/configuration.js';
import { testRule } from '../../../test/support/forwarding-state.js';
import { clientTuples, nth, SAMPLE } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

const FLOWS = 1_000_000;
const BACKENDS = 10;
const LIMITS: Limits = {
  tcpFlows: 2 * FLOWS,
  udpFlows: 2 * FLOWS,
  embryonicFlows: FLOWS,
  embryonicTimeoutMs: 10_000,
};

export const FLOW_TABLE: readonly MicroBench[] = [
  addAndRemove('no cap per source', LIMITS),
  addAndRemove('with a cap per source', { ...LIMITS, udpFlowsPerSource: FLOWS }),
  {
    name: 'flow table: page of 100 of 1 M flows',
    prepare() {
      const table = filledTable(LIMITS);
      let after = 0;
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) {
            const page = table.page({}, after, 100);
            after = page.next ?? 0;
            sum += page.flows.length;
          }
          return sum;
        },
      };
    },
  },
  {
    name: 'flow table: flows on one of 10 backends, 1 M flows',
    prepare() {
      const table = filledTable(LIMITS);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += table.flowsOn(`nvas/${i % BACKENDS}`).length;
          return sum;
        },
      };
    },
  },
];

/** A flow comes and the oldest goes: the table stays at 1 M. */
function addAndRemove(condition: string, limits: Limits): MicroBench {
  return {
    name: `flow table: add, place and remove at 1 M flows, ${condition}`,
    prepare() {
      const table = filledTable(limits);
      const fresh = makeFlows(SAMPLE);
      return {
        run(iterations) {
          for (let i = 0; i < iterations; i++) {
            const flow = nth(fresh, i);
            table.remove(flow);
            flow.placement = undefined;
            table.add(flow);
            table.change(flow, place);
          }
          return table.size;
        },
      };
    },
  };
}

function filledTable(limits: Limits): FlowTable {
  const table = new FlowTable(limits);
  for (const flow of makeFlows(FLOWS)) {
    table.add(flow);
    table.change(flow, place);
  }
  return table;
}

function place(flow: Flow): void {
  flow.placement = PLACEMENTS[flow.id % BACKENDS];
}

const TUPLES = clientTuples(4);

const PLACEMENTS = Array.from({ length: BACKENDS }, (_, n) => ({
  backendId: `nvas/${n}`,
  endpoint: { address: nth(TUPLES, 0).destination, port: 53 },
  reason: 'hash' as const,
  epoch: 1,
  excluded: [],
}));

const TRANSPORT = { close: nothing, blackhole: nothing, unpin: nothing };

function nothing(): void {
  // No sockets here.
}

function makeFlows(count: number): readonly Flow[] {
  const slot = { rule: testRule(), index: 0, view: undefined };
  return Array.from({ length: count }, (_, id) => {
    const tuple = nth(TUPLES, id);
    return new Flow({ id, tuple, slot, transport: TRANSPORT, wallMs: 0, nowMs: 0 });
  });
}
