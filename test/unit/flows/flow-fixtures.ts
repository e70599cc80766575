import { Flow, type FlowTransport, type RuleSlot } from '../../../src/flows/flow.js';
import { ipAddress, type FiveTuple, type Protocol } from '../../../src/model/address.js';
import type { Rule } from '../../../src/model/configuration.js';
import { testRule } from '../../support/forwarding-state.js';

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
