import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import type { CapturedEnds } from '../../../../../src/planes/userspace/captured-ports.js';
import { EventQueue, FlowManager } from '../../../../../src/planes/userspace/flow-manager.js';
import type { Listener, ListenerBinding } from '../../../../../src/planes/userspace/listener.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import {
  createTcpListenerFactory,
  type TcpListenerOptions,
} from '../../../../../src/planes/userspace/tcp/listener.js';
import { ipAddress } from '../../../../../src/model/address.js';
import { parsePortSet, type PortSet } from '../../../../../src/model/ports.js';
import { systemClock as clock } from '../../../../../src/runtime/clock.js';
import { createPicker } from '../../../../../src/selection/picker.js';
import { within } from '../../../../support/deadline.js';
import { relinked, testFrontend, testRule, testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { receive, TestServer } from './tcp-lab.js';

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

  constructor(state: State, options: TcpListenerOptions) {
    this.manager = new FlowManager(
      { clock, events: this.#queue },
      { flowEvents: false, worker: 0, workers: 1 },
      state,
    );
    this.manager.adopt(state);
    this.#factory = createTcpListenerFactory(
      {
        manager: this.manager,
        picker: createPicker(() => 0),
        sourcePorts: new SourcePorts({ clock, events: this.#queue }),
        routeSource: new RouteSource({ clock }),
        onConnectLatency: () => undefined,
      },
      options,
    );
  }

  async open(binding: ListenerBinding): Promise<Listener> {
    const listener = await this.#factory.open(binding);
    this.listeners.push(listener);
    return listener;
  }

  drops(rule: string): object {
    return { ...this.manager.traffic.arrivals(rule, 'tcp').drops };
  }

  arrivals(rule: string): number {
    return this.manager.traffic.arrivals(rule, 'tcp').arrivals;
  }

  close(): void {
    for (const listener of this.listeners) listener.destroy();
    for (const flow of this.manager.table.all()) this.manager.end(flow, 'shutdown', 'reset');
  }
}

export function bindingOf(state: State, port: number, ends: CapturedEnds): ListenerBinding {
  const [rule, frontend] = [state.configuration.rules[0]!, state.configuration.frontends[0]!];
  const captured = { protocol: 'tcp', ends } as const;
  return { protocol: 'tcp', address: ipAddress('0.0.0.0'), port, rule, ruleIndex: 0, frontend, captured };
}

/** The first line that the backend got, a PROXY header; or `reset`. */
export async function tellOf(address: string, port: number): Promise<string> {
  const client = connect({ host: address, port });
  const { text, end } = await within(receive(client), 5000, `an answer of ${address}:${port}`);
  return end === 'reset' ? 'reset' : text.trim();
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
