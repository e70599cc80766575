import assert from 'node:assert/strict';
import { EventQueue } from '../../../src/flows/event-queue.js';
import { FlowManager } from '../../../src/flows/flow-manager.js';
import { Flow, type FlowTransport, type RuleSlot, type TrafficTotals } from '../../../src/flows/flow.js';
import { WHEEL_TICK_MS } from '../../../src/flows/idle-wheel.js';
import { ipAddress, type FiveTuple, type Protocol } from '../../../src/model/address.js';
import type { Rule } from '../../../src/model/configuration.js';
import type { PlaneEvent } from '../../../src/model/events.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { FakeClock } from '../../support/fake-clock.js';
import { testRule, testState, type TestStateParts } from '../../support/forwarding-state.js';

/** Remembers what it was told to do. */
export class RecordingTransport implements FlowTransport {
  readonly calls: string[] = [];

  close(style: string): void {
    this.calls.push(`close ${style}`);
  }

  blackhole(): void {
    this.calls.push('blackhole');
  }

  unpin(): void {
    this.calls.push('unpin');
  }
}

export function slotOf(rule: Rule): RuleSlot {
  return { rule, index: 0, view: undefined };
}

export function aTuple(protocol: Protocol, source = '192.0.2.1', sourcePort = 4000): FiveTuple {
  const destination = ipAddress('198.51.100.1');
  return { protocol, source: ipAddress(source), sourcePort, destination, destinationPort: 443 };
}

export function aFlow(id: number, protocol: Protocol, source?: string): Flow {
  const tuple = aTuple(protocol, source);
  return new Flow({
    id,
    tuple,
    slot: slotOf(testRule()),
    transport: new RecordingTransport(),
    wallMs: 0,
    nowMs: 0,
  });
}

export function placementOn(backendId: string): NonNullable<Flow['placement']> {
  const endpoint = { address: ipAddress('10.0.0.1'), port: 443 };
  return { backendId, endpoint, reason: 'hash', epoch: 1, excluded: [] };
}

export const A = 'nvas/10.0.0.1';
export const B = 'nvas/10.0.0.2';

/** A state with both backends, where nothing else is said. */
export function stateOf(parts: Partial<TestStateParts> = {}): ForwardingState {
  return testState({ backends: ['10.0.0.1', '10.0.0.2'], ...parts });
}

export interface OpenFlow {
  readonly flow: Flow;
  /** What its transport was told to do. */
  readonly calls: readonly string[];
}

/** A flow manager on a fake clock, and flows without sockets. */
export class FlowBench {
  readonly clock = new FakeClock();
  readonly queue = new EventQueue(this.clock);
  readonly manager: FlowManager;
  readonly #events: PlaneEvent[] = [];
  #ports = 1000;

  constructor(parts: Partial<TestStateParts> = {}, worker = { worker: 0, workers: 1 }) {
    const { clock, queue } = this;
    this.manager = new FlowManager({ clock, events: queue }, { flowEvents: true, ...worker }, stateOf(parts));
    queue.subscribe((events) => this.#events.push(...events));
  }

  open(protocol: Protocol, source?: string): OpenFlow {
    const transport = new RecordingTransport();
    const [slot = slotOf(testRule())] = this.manager.slotsFor(this.manager.state.configuration);
    const flow = this.manager.open(aTuple(protocol, source, this.#ports++), slot, transport);
    assert.ok(flow instanceof Flow);
    return { flow, calls: transport.calls };
  }

  established(protocol: Protocol, backendId = A): OpenFlow {
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

  /** Since the start. */
  events(): readonly string[] {
    this.queue.flush();
    return this.#events.map((event) =>
      event.type === 'flow-ended' ? `flow-ended ${event.end}` : event.type,
    );
  }

  totals(backendId: string, protocol: Protocol, rule = 'ha-ports'): TrafficTotals {
    return this.manager.traffic.of(rule, backendId, protocol);
  }
}
