import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { estimateSources } from '../../../src/flows/traffic.js';
import { NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { AZURE_POLICY, testRule } from '../../support/forwarding-state.js';
import {
  A,
  B,
  FlowBench,
  RecordingTransport,
  aTuple,
  placementOn,
  slotOf,
  stateOf,
} from './flow-fixtures.js';

describe('FlowManager', () => {
  test('open() gives ids that are unique over workers', () => {
    const bench = new FlowBench({}, { worker: 1, workers: 4 });
    assert.equal(bench.manager.table.size, 0);
    const ids = [bench.open('tcp'), bench.open('udp'), bench.open('tcp')].map(({ flow }) => flow.id);
    for (const id of ids) assert.equal(id % 4, 1);
    assert.equal(new Set(ids).size, 3);
  });

  test('open() refuses and counts what is over a limit', () => {
    const bench = new FlowBench({ limits: { udpFlows: 1 } });
    bench.manager.answered(bench.open('udp').flow);
    const refusal = bench.manager.open(aTuple('udp'), slotOf(testRule()), new RecordingTransport());
    assert.equal(refusal, 'table-full');
    assert.deepEqual(bench.manager.traffic.arrivals('ha-ports', 'udp').drops, { 'table-full': 1 });
    assert.equal(bench.manager.table.size, 1);
  });

  test('open() evicts the UDP flow without an answer whose client has been silent longest', () => {
    const bench = new FlowBench({ limits: { udpFlows: 3 } });
    const [one, two, three] = [1, 2, 3].map(() => bench.established('udp'));
    bench.manager.answered(one!.flow);
    bench.manager.heardFromClient(two!.flow);
    bench.open('udp');
    assert.deepEqual(
      [one, two, three].map((open) => open!.calls),
      [[], [], ['close close']],
    );
    assert.deepEqual(bench.totals(A, 'udp').flowsEnded, { evicted: 1 });
    assert.deepEqual(bench.manager.traffic.arrivals('ha-ports', 'udp').drops, {}, 'nothing is refused');
    assert.ok(bench.events().includes('overload'));
    assert.equal(bench.manager.capUses().get('udp')?.wanting, true);
    assert.equal(bench.manager.table.size, 3);
  });

  test('open() evicts as many as a TCP flow takes descriptors, and no flow with an answer', () => {
    const bench = new FlowBench();
    bench.manager.table.setDescriptorRoom(4);
    const flows = [1, 2, 3].map(() => bench.open('udp'));
    bench.manager.answered(flows[0]!.flow);
    bench.open('tcp');
    assert.deepEqual(
      flows.map(({ calls }) => calls),
      [[], ['close close'], []],
    );
    const refused = bench.manager.open(aTuple('tcp'), slotOf(testRule()), new RecordingTransport());
    assert.equal(refused, 'descriptors-exhausted');
    assert.equal(bench.manager.traffic.arrivals('ha-ports', 'tcp').drops['descriptors-exhausted'], 1);
  });

  test('open() evicts no one for a client at its cap', () => {
    const bench = new FlowBench({ limits: { udpFlows: 2, udpFlowsPerSource: 1 } });
    const flows = ['192.0.2.1', '192.0.2.2'].map((source) => bench.open('udp', source));
    const refused = bench.manager.open(aTuple('udp'), slotOf(testRule()), new RecordingTransport());
    assert.equal(refused, 'table-full');
    assert.deepEqual(
      flows.map(({ calls }) => calls),
      [[], []],
    );
  });

  test('FlowManager tells a flow from start to end and counts it on its backend', () => {
    const bench = new FlowBench();
    const { flow, calls } = bench.established('tcp');
    flow.bytesToBackend = 10;
    assert.equal(bench.totals(A, 'tcp').flowsActive, 1);
    assert.equal(bench.totals(A, 'tcp').flowsOpened, 1);
    bench.manager.end(flow, 'closed', 'gone');
    bench.manager.end(flow, 'error', 'reset');
    const totals = bench.totals(A, 'tcp');
    assert.deepEqual([totals.flowsActive, totals.bytesToBackend, totals.resets], [0, 10, 0]);
    assert.deepEqual(totals.flowsEnded, { closed: 1 });
    assert.deepEqual(calls, ['close gone']);
    assert.deepEqual(bench.events(), ['flow-started', 'flow-ended closed']);
    assert.equal(bench.manager.table.size, 0);
  });

  test('place() notes the epoch, and what it passed over in the order of the pool; most flows share one empty list', () => {
    const bench = new FlowBench();
    bench.manager.apply(stateOf({ revision: 7 }));
    const [one, two] = [bench.open('udp').flow, bench.open('udp').flow];
    bench.manager.place(one, placementOn(A));
    bench.manager.place(two, placementOn(A));
    assert.equal(one.placement?.epoch, 7);
    assert.equal(one.placement.excluded, two.placement?.excluded);
    bench.manager.place(two, placementOn(A), new Set([B, A, 'nvas/10.0.0.9']));
    assert.deepEqual(two.placement?.excluded, [A, B]);
  });

  test('place() takes cap, totals and index of an established flow along', () => {
    const bench = new FlowBench();
    const { flow } = bench.established('udp');
    flow.bytesToBackend = 3;
    bench.manager.place(flow, placementOn(B));
    flow.bytesToBackend = 8;
    bench.manager.settleAll();
    assert.deepEqual([bench.totals(A, 'udp').bytesToBackend, bench.totals(B, 'udp').bytesToBackend], [3, 5]);
    assert.deepEqual([bench.totals(A, 'udp').flowsActive, bench.totals(B, 'udp').flowsActive], [0, 1]);
    assert.deepEqual(bench.manager.table.backendIds(), [B]);
    assert.deepEqual(bench.events(), ['flow-started', 'flow-moved']);
  });

  test('FlowManager notes when a backend got its last flow, and who the clients are', () => {
    const bench = new FlowBench();
    const totals = () => bench.totals(A, 'udp').lastFlowAtMs;
    assert.equal(totals(), undefined);
    bench.clock.advance(5);
    const { flow } = bench.established('udp');
    const first = bench.clock.wallMs();
    bench.clock.advance(1000);
    assert.equal(totals(), first);
    bench.manager.place(flow, placementOn(B));
    assert.equal(totals(), first);
    assert.equal(bench.totals(B, 'udp').lastFlowAtMs, first + 1000);
    // One that never got through is no client of the rule.
    bench.open('tcp');
    assert.equal(bench.manager.traffic.arrivals('ha-ports', 'tcp').sourceSketch, undefined);
    const { sourceSketch } = bench.manager.traffic.arrivals('ha-ports', 'udp');
    assert.equal(Math.round(estimateSources(sourceSketch ?? new Uint8Array())), 1);
  });

  test('place() counts TCP against the cap of the first state, and a retry only once', () => {
    const bench = new FlowBench({
      backends: [{ address: '10.0.0.1', backend: { maxConnections: 2 } }, '10.0.0.2'],
    });
    const [one, two] = [bench.open('tcp').flow, bench.open('tcp').flow];
    const step = (expected: readonly string[], tried: readonly string[] = []): void =>
      assert.deepEqual([...bench.manager.caps.excluded(new Set(tried))].sort(), expected);
    bench.manager.place(one, placementOn(A));
    step([]);
    bench.manager.place(two, placementOn(A));
    step([A]);
    step([A, B], [B]);
    bench.manager.place(two, placementOn(B));
    step([]);
    step([B], [B]);
    bench.manager.place(two, placementOn(A));
    bench.manager.apply(stateOf({ backends: ['10.0.0.1'] }));
    step([]);
    bench.manager.apply(stateOf({ backends: [{ address: '10.0.0.1', backend: { maxConnections: 1 } }] }));
    step([A]);
    bench.manager.end(one, 'closed', 'gone');
    step([A]);
    bench.manager.end(two, 'closed', 'gone');
    step([]);
  });

  test('place() does not count UDP against a cap', () => {
    const bench = new FlowBench({
      backends: [{ address: '10.0.0.1', backend: { maxConnections: 1 } }, '10.0.0.2'],
    });
    bench.manager.place(bench.open('udp').flow, placementOn(A));
    assert.deepEqual([...bench.manager.caps.excluded(NONE_EXCLUDED)], []);
  });

  test('identify() holds the true source to its cap, even while the embryonic budget is full', () => {
    const bench = new FlowBench({ limits: { tcpFlowsPerSource: 1, embryonicFlows: 2 } });
    const first = bench.open('tcp', '192.0.2.7').flow;
    const proxied = bench.open('tcp', '198.51.100.9').flow;
    assert.equal(bench.manager.identify(proxied, aTuple('tcp', '192.0.2.7')), 'source-cap');
    assert.equal(proxied.tuple.source.text, '198.51.100.9');
    // A header that says what the socket says (LOCAL) changes nothing.
    assert.equal(bench.manager.identify(first, aTuple('tcp', '192.0.2.7', 9)), undefined);
    assert.equal(bench.manager.identify(proxied, aTuple('tcp', '192.0.2.8')), undefined);
    assert.equal(bench.manager.table.isSourceFull('tcp', '192.0.2.8'), true);
    assert.equal(bench.manager.table.isSourceFull('tcp', '198.51.100.9'), false);
  });

  test('tick() ends what is idle, with a reset where the rule says so', () => {
    for (const [tcpReset, style] of [
      [true, 'close reset'],
      [false, 'close close'],
    ] as const) {
      const bench = new FlowBench({ rule: { tcpReset } });
      const { flow, calls } = bench.established('tcp');
      bench.pass(200_000);
      flow.lastActivityMs = bench.clock.monotonicMs();
      bench.pass(239_500);
      assert.deepEqual(calls, []);
      bench.pass(1000);
      assert.deepEqual(calls, [style]);
      assert.equal(bench.totals(A, 'tcp').resets, tcpReset ? 1 : 0);
    }
  });

  test('tick() keeps idle flows where policy says persist', () => {
    const flowPolicy = { ...AZURE_POLICY, idle: { tcp: 'persist', udp: 'persist' } } as const;
    const bench = new FlowBench({ rule: { flowPolicy } });
    bench.established('udp');
    bench.pass(100_000);
    assert.equal(bench.manager.table.size, 1);
  });

  test('tick() ends embryonic flows by their own limit', () => {
    const bench = new FlowBench({ limits: { embryonicTimeoutMs: 3000 } });
    const { calls } = bench.open('tcp');
    bench.pass(2500);
    assert.deepEqual(calls, []);
    bench.pass(1000);
    assert.deepEqual(calls, ['close reset']);
    // It was on no backend, so there is nothing to log.
    assert.deepEqual(bench.events(), []);
  });

  test('blackhole() holds TCP for the embryonic limit and UDP until it is idle', () => {
    const bench = new FlowBench({ limits: { embryonicTimeoutMs: 3000 } });
    const [tcp, udp] = [bench.established('tcp'), bench.established('udp')];
    bench.pass(1000);
    for (const { flow } of [tcp, udp]) {
      bench.manager.blackhole(flow);
      bench.manager.blackhole(flow);
    }
    bench.pass(4000);
    assert.deepEqual(tcp.calls, ['blackhole', 'close close']);
    assert.deepEqual(udp.calls, ['blackhole']);
    bench.pass(30_000);
    assert.deepEqual(udp.calls, ['blackhole', 'close close']);
    assert.deepEqual(bench.events().slice(2), ['flow-ended embryonic-timeout', 'flow-ended idle']);
  });

  test('apply() makes a shorter idle timeout hold at once', () => {
    const bench = new FlowBench();
    const { flow } = bench.established('tcp');
    const idleTimeoutMs = { ...flow.rule.idleTimeoutMs, tcp: { value: 5000, origin: 'rule' } } as const;
    bench.manager.apply(stateOf({ rule: { idleTimeoutMs }, digest: 'b' }));
    bench.pass(6000);
    assert.equal(bench.manager.table.size, 0);
  });

  test('backendFailed() and retried() count for the backend that failed', () => {
    const bench = new FlowBench();
    const { flow } = bench.open('tcp');
    bench.manager.retried(flow);
    assert.deepEqual(bench.events(), []);
    bench.manager.place(flow, placementOn(A));
    bench.manager.backendFailed(flow.rule, 'tcp', A, 'ECONNREFUSED');
    bench.manager.retried(flow);
    bench.manager.place(flow, placementOn(B));
    assert.deepEqual([bench.totals(A, 'tcp').connectFailures, bench.totals(A, 'tcp').connectRetries], [1, 1]);
    assert.deepEqual([bench.totals(B, 'tcp').connectFailures, bench.totals(B, 'tcp').connectRetries], [0, 0]);
    assert.deepEqual(bench.events(), ['passive-failure']);
  });
});
