import type { ListeningSocket, UdpFlowState } from '../../../src/planes/contract.js';
import { ipAddress, type Protocol } from '../../../src/model/address.js';

/** A socket without a socket, which counts how often its owner let go of it. */
export class FakeSocket implements ListeningSocket {
  readonly address = '198.51.100.1';
  readonly protocol: Protocol;
  readonly port: number;
  readonly handle: { readonly name: string; closed: number; close(): void };
  released = 0;

  constructor(protocol: Protocol, port: number) {
    this.protocol = protocol;
    this.port = port;
    this.handle = {
      name: `${protocol} ${port}`,
      closed: 0,
      close() {
        this.closed++;
      },
    };
  }

  release(): void {
    this.released++;
  }
}

export function aUdpFlow(sourcePort: number, overrides: Partial<UdpFlowState> = {}): UdpFlowState {
  return {
    tuple: {
      protocol: 'udp',
      source: ipAddress('192.0.2.7'),
      sourcePort,
      destination: ipAddress('198.51.100.1'),
      destinationPort: 53,
    },
    clientAddress: '192.0.2.7',
    rule: 'ha-ports',
    backendId: 'nvas/10.0.0.1',
    endpoint: { address: ipAddress('10.0.0.1'), port: 53 },
    source: ipAddress('10.0.0.99'),
    sourcePort: 40_000,
    openedAtMs: 1000,
    ...{ bytesToBackend: 1, packetsToBackend: 2, bytesToClient: 3, packetsToClient: 4 },
    ...overrides,
  };
}
