import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import type { CapturedFrontends } from '../../../../../src/planes/userspace/captured-ports.js';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import type { ListenerBinding } from '../../../../../src/planes/userspace/listen-plan.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import { NetSockets } from '../../../../../src/planes/userspace/sockets/net.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { createTcpListenerFactory } from '../../../../../src/planes/userspace/tcp/listener.js';
import type { CapturePlan } from '../../../../../src/model/capture.js';
import { ipAddress } from '../../../../../src/model/address.js';
import { parsePortSet, type PortSet } from '../../../../../src/model/ports.js';
import { systemClock as clock } from '../../../../../src/runtime/clock.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { relinked, testFrontend, testRule, testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { NOTHING_INHERITED, TestServer } from './tcp-lab.js';

export const host = loopbackBlock(Number(process.env['LOOPBACK_SALT'] ?? 5));
const BACKEND = host(200);
export const ports = (text: string): PortSet => parsePortSet(text) ?? assert.fail(text);

/** Two frontends, `hub` and `spoke`, with a rule each; `state` has the rules of both. */
export function aState(hub: PortSet, spoke: PortSet, { digest = 'a'.repeat(64), portOffset = 0 } = {}) {
  const frontends = [
    testFrontend({ name: 'hub', address: ipAddress(host(1)) }),
    testFrontend({ name: 'spoke', address: ipAddress(host(2)) }),
  ];
  const rules = [
    testRule({ name: 'hub-rule', frontend: 'hub', ports: hub, portOffset }),
    testRule({ name: 'spoke-rule', frontend: 'spoke', ports: spoke, portOffset }),
  ];
  const state = testState({ backends: [BACKEND], digest, pool: { proxyProtocol: 'v1' } });
  const configuration = relinked({ ...state.configuration, frontends, rules });
  return { ...state, configuration, viewOfRule: [0, 0] };
}

export type State = ReturnType<typeof aState>;

export class CaptureLab {
  readonly manager: FlowManager;
  readonly #factory;
  readonly #queue = new EventQueue(clock);
  readonly listeners: Listener[] = [];

  constructor(state: State, capture?: CapturePlan) {
    this.manager = new FlowManager(
      { clock, events: this.#queue },
      { flowEvents: false, worker: 0, workers: 1 },
      state,
    );
    this.#factory = createTcpListenerFactory(
      {
        manager: this.manager,
        picker: new Picker(() => 0),
        sockets: new NetSockets(),
        sourcePorts: new SourcePorts({ clock, events: this.#queue }),
        routeSource: new RouteSource({ clock }),
        onConnectLatency: () => undefined,
      },
      capture,
    );
  }

  async open(binding: ListenerBinding): Promise<Listener> {
    const listener = await this.#factory.open(binding, NOTHING_INHERITED);
    this.listeners.push(listener);
    return listener;
  }

  drops(rule: string): object {
    return { ...this.manager.traffic.arrivals(rule, 'tcp').drops };
  }

  arrivals(rule: string): number {
    return this.manager.traffic.arrivals(rule, 'tcp').arrivals;
  }

  binding(port: number, frontends: CapturedFrontends): ListenerBinding {
    const slot = this.manager.slotsFor(this.manager.state.configuration)[0]!;
    const captured = { protocol: 'tcp', frontends } as const;
    return { protocol: 'tcp', address: ipAddress('0.0.0.0'), port, slot, captured };
  }

  close(): void {
    for (const listener of this.listeners) listener.destroy();
    for (const flow of this.manager.table.all()) this.manager.end(flow, 'shutdown', 'reset');
  }
}

export function expectedLine(frontend: string, port: number): RegExp {
  return new RegExp(`^PROXY TCP4 127\\.[\\d.]+ ${frontend.replaceAll('.', '\\.')} \\d+ ${port}$`);
}

/** A backend on the port that sends the PROXY line back. */
export function backendOn(port: number): Promise<TestServer> {
  return TestServer.listen(
    BACKEND,
    (socket: Socket) => {
      socket.once('data', (chunk: Buffer) => socket.end(chunk.toString().split('\r\n')[0] ?? ''));
    },
    { port },
  );
}
