import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../src/flows/event-queue.js';
import { FlowManager } from '../../../src/flows/flow-manager.js';
import { WHEEL_TICK_MS } from '../../../src/flows/idle-wheel.js';
import { Flow } from '../../../src/flows/flow.js';
import type { PlaneEvent } from '../../../src/model/events.js';
import type { Protocol } from '../../../src/model/address.js';
import { estimateSources } from '../../../src/flows/traffic.js';
import { NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { FakeClock } from '../../support/fake-clock.js';
import { AZURE_POLICY, testRule, testState, type TestStateParts } from '../../support/forwarding-state.js';
import { aTuple, placementOn, RecordingTransport, slotOf } from './flow-fixtures.js';

const A = 'nvas/10.0.0.1';
const B = 'nvas/10.0.0.2';

class Bench {
  readonly clock = new FakeClock();
  readonly queue = new EventQueue(this.clock);
  readonly manager: FlowManager;
  readonly #events: PlaneEvent[] = [];
  #ports = 1000;

  constructor(parts: Partial<TestStateParts> = {}, worker = { worker: 0, workers: 1 }) {
    this.manager = new FlowManager(
      { clock: this.clock, events: this.queue },
      { flowEvents: true, ...worker },
      testState({ backends: ['10.0.0.1', '10.0.0.2'], ...parts }),
    );
    this.queue.subscribe((events) => this.#events.push(...events));
  }

  open(protocol: Protocol, source?: string): { readonly flow: Flow; readonly transport: RecordingTransport } {
    const transport = new RecordingTransport();
    const [slot = slotOf(testRule())] = this.manager.slotsFor(this.manager.state.configuration);
    const flow = this.manager.open(aTuple(protocol, source, this.#ports++), slot, transport);
    assert.ok(flow instanceof Flow);
    return { flow, transport };
  }

  established(protocol: Protocol, backendId = A): ReturnType<Bench['open']> {
    const opened = this.open(protocol);
    this.manager.place(opened.flow, placementOn(backendId));
    this.manager.establish(opened.flow);
    return opened;
  }

  /** As the plane does, tick by tick. */
  pass(byMs: number): void {
    for (let doneMs = 0; doneMs < byMs; doneMs += WHEEL_TICK_MS) {
      this.clock.advance(Math.min(WHEEL_TICK_MS, byMs - doneMs));
      this.manager.tick();
    }
  }

  events(): readonly string[] {
    this.queue.flush();
    return this.#events.map((event) =>
      event.type === 'flow-ended' ? `flow-ended ${event.end}` : event.type,
    );
  }

  totals(backendId: string, protocol: Protocol): ReturnType<FlowManager['traffic']['of']> {
    return this.manager.traffic.of('ha-ports', backendId, protocol);
  }
}

describe('FlowManager', () => {
  test('open() gives ids that are unique over workers', () => {
    const bench = new Bench({}, { worker: 1, workers: 4 });
    assert.equal(bench.manager.table.size, 0);
    const ids = [bench.open('tcp'), bench.open('udp'), bench.open('tcp')].map(({ flow }) => flow.id);
    for (const id of ids) assert.equal(id % 4, 1);
    assert.equal(new Set(ids).size, 3);
  });

  test('open() refuses and counts what is over a limit', () => {
    const bench = new Bench({ limits: { udpFlows: 1 } });
    bench.open('udp');
    const refusal = bench.manager.open(aTuple('udp'), slotOf(testRule()), new RecordingTransport());
    assert.equal(refusal, 'table-full');
    assert.deepEqual(bench.manager.traffic.arrivals('ha-ports', 'udp').drops, { 'table-full': 1 });
    assert.equal(bench.manager.table.size, 1);
  });

  test('FlowManager tells a flow from start to end and counts it on its backend', () => {
    const bench = new Bench();
    const { flow, transport } = bench.established('tcp');
    flow.bytesToBackend = 10;
    assert.equal(bench.totals(A, 'tcp').flowsActive, 1);
    assert.equal(bench.totals(A, 'tcp').flowsOpened, 1);
    bench.manager.end(flow, 'closed', 'gone');
    bench.manager.end(flow, 'error', 'reset');
    const totals = bench.totals(A, 'tcp');
    assert.deepEqual([totals.flowsActive, totals.bytesToBackend, totals.resets], [0, 10, 0]);
    assert.deepEqual(totals.flowsEnded, { closed: 1 });
    assert.deepEqual(transport.calls, ['close gone']);
    assert.deepEqual(bench.events(), ['flow-started', 'flow-ended closed']);
    assert.equal(bench.manager.table.size, 0);
  });

  test('move() takes cap, totals and index along', () => {
    const bench = new Bench();
    const { flow } = bench.established('udp');
    flow.bytesToBackend = 3;
    bench.manager.move(flow, placementOn(B));
    flow.bytesToBackend = 8;
    bench.manager.settleAll();
    assert.deepEqual([bench.totals(A, 'udp').bytesToBackend, bench.totals(B, 'udp').bytesToBackend], [3, 5]);
    assert.deepEqual([bench.totals(A, 'udp').flowsActive, bench.totals(B, 'udp').flowsActive], [0, 1]);
    assert.deepEqual(bench.manager.table.backendIds(), [B]);
    assert.deepEqual(bench.events(), ['flow-started', 'flow-moved']);
  });

  test('FlowManager notes when a backend got its last flow, and who the clients are', () => {
    const bench = new Bench();
    const totals = () => bench.manager.traffic.of('ha-ports', A, 'udp').lastFlowAtMs;
    assert.equal(totals(), 0);
    bench.clock.advance(5);
    const { flow } = bench.established('udp');
    const first = bench.clock.wallMs();
    bench.clock.advance(1000);
    assert.equal(totals(), first);
    bench.manager.move(flow, placementOn(B));
    assert.equal(totals(), first);
    assert.equal(bench.manager.traffic.of('ha-ports', B, 'udp').lastFlowAtMs, first + 1000);
    // One that never got through is no client of the rule.
    bench.open('tcp');
    assert.equal(bench.manager.traffic.arrivals('ha-ports', 'tcp').sources, undefined);
    const { sources } = bench.manager.traffic.arrivals('ha-ports', 'udp');
    assert.equal(Math.round(estimateSources(sources?.registers ?? new Uint8Array())), 1);
  });

  test('place() counts TCP against the cap of the first state, and a retry only once', () => {
    const bench = new Bench({
      backends: [{ address: '10.0.0.1', backend: { maxConnections: 2 } }, '10.0.0.2'],
    });
    const { caps } = bench.manager;
    const [one, two] = [bench.open('tcp').flow, bench.open('tcp').flow];
    bench.manager.place(one, placementOn(A));
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], []);
    bench.manager.place(two, placementOn(A));
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], [A]);
    assert.deepEqual([...caps.excluded(new Set([B]))].sort(), [A, B]);
    bench.manager.place(two, placementOn(B));
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], []);
    assert.deepEqual([...caps.excluded(new Set([B]))], [B]);
    bench.manager.place(two, placementOn(A));
    bench.manager.apply(testState({ backends: ['10.0.0.1'] }));
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], []);
    bench.manager.apply(testState({ backends: [{ address: '10.0.0.1', backend: { maxConnections: 1 } }] }));
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], [A]);
    bench.manager.end(one, 'closed', 'gone');
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], [A]);
    bench.manager.end(two, 'closed', 'gone');
    assert.deepEqual([...caps.excluded(NONE_EXCLUDED)], []);
  });

  test('place() does not count UDP against a cap', () => {
    const bench = new Bench({
      backends: [{ address: '10.0.0.1', backend: { maxConnections: 1 } }, '10.0.0.2'],
    });
    bench.manager.place(bench.open('udp').flow, placementOn(A));
    assert.deepEqual([...bench.manager.caps.excluded(NONE_EXCLUDED)], []);
  });

  test('identify() holds the true source to its cap, even while the embryonic budget is full', () => {
    const bench = new Bench({ limits: { tcpFlowsPerSource: 1, embryonicFlows: 2 } });
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
      const bench = new Bench({ rule: { tcpReset } });
      const { flow, transport } = bench.established('tcp');
      bench.pass(200_000);
      flow.lastActivityMs = bench.clock.monotonicMs();
      bench.pass(239_500);
      assert.deepEqual(transport.calls, []);
      bench.pass(1000);
      assert.deepEqual(transport.calls, [style]);
      assert.equal(bench.totals(A, 'tcp').resets, tcpReset ? 1 : 0);
    }
  });

  test('tick() keeps idle flows where policy says persist', () => {
    const flowPolicy = { ...AZURE_POLICY, idle: { tcp: 'persist', udp: 'persist' } } as const;
    const bench = new Bench({ rule: { flowPolicy } });
    bench.established('udp');
    bench.pass(100_000);
    assert.equal(bench.manager.table.size, 1);
  });

  test('tick() ends embryonic flows by their own limit', () => {
    const bench = new Bench({ limits: { embryonicTimeoutMs: 3000 } });
    const { transport } = bench.open('tcp');
    bench.pass(2500);
    assert.deepEqual(transport.calls, []);
    bench.pass(1000);
    assert.deepEqual(transport.calls, ['close reset']);
    // It was on no backend, so there is nothing to log.
    assert.deepEqual(bench.events(), []);
  });

  test('blackhole() holds TCP for the embryonic limit and UDP until it is idle', () => {
    const bench = new Bench({ limits: { embryonicTimeoutMs: 3000 } });
    const [tcp, udp] = [bench.established('tcp'), bench.established('udp')];
    bench.pass(1000);
    for (const { flow } of [tcp, udp]) {
      bench.manager.blackhole(flow);
      bench.manager.blackhole(flow);
    }
    bench.pass(4000);
    assert.deepEqual(tcp.transport.calls, ['blackhole', 'close close']);
    assert.deepEqual(udp.transport.calls, ['blackhole']);
    bench.pass(30_000);
    assert.deepEqual(udp.transport.calls, ['blackhole', 'close close']);
    assert.deepEqual(bench.events().slice(2), ['flow-ended embryonic-timeout', 'flow-ended idle']);
  });

  test('apply() makes a shorter idle timeout hold at once', () => {
    const bench = new Bench();
    const { flow } = bench.established('tcp');
    const idleTimeoutMs = { ...flow.rule.idleTimeoutMs, tcp: { value: 5000, origin: 'rule' } } as const;
    bench.manager.apply(
      testState({ backends: ['10.0.0.1', '10.0.0.2'], rule: { idleTimeoutMs }, digest: 'b' }),
    );
    bench.pass(6000);
    assert.equal(bench.manager.table.size, 0);
  });

  test('backendFailed() and retried() count for the backend that failed', () => {
    const bench = new Bench();
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
