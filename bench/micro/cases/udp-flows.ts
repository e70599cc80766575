import { EventQueue } from '../../../src/flows/event-queue.js';
import { FlowManager } from '../../../src/flows/flow-manager.js';
import { ClientKeys, ClientMap } from '../../../src/planes/userspace/udp/client-map.js';
import { Flow, type Placement } from '../../../src/flows/flow.js';
import { WHEEL_TICK_MS } from '../../../src/flows/idle-wheel.js';
import { ipAddress, type FiveTuple, type IpAddress } from '../../../src/model/address.js';
import { FakeClock } from '../../../test/support/fake-clock.js';
import { testState } from '../../../test/support/forwarding-state.js';
import { Dice } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

const FLOWS = 1 << 20;

/** Clients; each has as many flows as it takes. */
const ADDRESSES = 1 << 13;

const FIRST_PORT = 1024;

interface Client {
  readonly source: IpAddress;
  readonly port: number;
}

/** A worker's UDP flows, less the sockets: what a listener and the manager hold of each. */
class Flows {
  readonly #clock = new FakeClock();
  readonly #manager = new FlowManager(
    { clock: this.#clock, events: new EventQueue(this.#clock) },
    { flowEvents: false, worker: 0, workers: 1 },
    testState({ backends: ['10.0.0.1', '10.0.0.2'], limits: { udpFlows: 2 * FLOWS } }),
  );
  readonly #keys: ClientKeys;
  readonly #flows = new ClientMap<Flow>();
  readonly #placements: readonly Placement[] = ['nvas/10.0.0.1', 'nvas/10.0.0.2'].map((backendId) => ({
    backendId,
    endpoint: { address: ipAddress('10.0.0.1'), port: 53 },
    reason: 'hash',
    epoch: 1,
    excluded: [],
  }));
  readonly #destination: IpAddress;

  constructor(family: 4 | 6) {
    this.#keys = new ClientKeys(family);
    this.#destination = ipAddress(family === 4 ? '192.0.2.1' : '2001:db8::1');
  }

  get size(): number {
    return this.#flows.size;
  }

  find(address: string, port: number): Flow | undefined {
    return this.#flows.get(this.#keys.find(address, port));
  }

  open({ source, port: sourcePort }: Client): Flow | undefined {
    const key = this.#keys.hold(source.text, sourcePort);
    const close = (): void => {
      this.#flows.delete(key);
      this.#keys.release(source.text);
    };
    const tuple: FiveTuple = {
      protocol: 'udp',
      source,
      sourcePort,
      destination: this.#destination,
      destinationPort: 53,
    };
    const [slot] = this.#manager.slotsFor(this.#manager.state.configuration);
    const placement = this.#placements[key % this.#placements.length];
    if (slot === undefined || placement === undefined) return undefined;
    const flow = this.#manager.open(tuple, slot, { close, blackhole: nothing, unpin: nothing });
    if (!(flow instanceof Flow)) return undefined;
    this.#manager.place(flow, placement);
    this.#manager.establish(flow);
    this.#flows.add(key, flow);
    return flow;
  }

  end(flow: Flow): void {
    this.#manager.end(flow, 'idle', 'close');
  }

  /** Everything expires. */
  pass(byMs: number): void {
    for (let doneMs = 0; doneMs < byMs; doneMs += WHEEL_TICK_MS) {
      this.#clock.advance(WHEEL_TICK_MS);
      this.#manager.tick();
    }
  }
}

export const UDP_FLOWS: readonly MicroBench[] = [
  lookUp(4),
  lookUp(6),
  {
    name: 'UDP flow: insert and end at 1 M flows',
    prepare() {
      const flows = filled(4, clients(4));
      const fresh = Array.from({ length: 1024 }, (_, n) => ({
        source: ipAddress(`172.16.${n >> 8}.${n & 255}`),
        port: 53,
      }));
      return {
        run(iterations) {
          for (let i = 0; i < iterations; i++) {
            const flow = flows.open(fresh[i & 1023]!);
            if (flow !== undefined) flows.end(flow);
          }
          return flows.size;
        },
      };
    },
  },
  {
    name: 'UDP flow: expire, of 1 M flows',
    prepare() {
      const all = clients(4);
      const flows = new Flows(4);
      return {
        iterations: FLOWS,
        before() {
          flows.pass(60_000);
          if (flows.size > 0) throw new Error(`${flows.size} flows have not expired`);
          for (const client of all) flows.open(client);
        },
        run() {
          flows.pass(60_000);
          return flows.size;
        },
      };
    },
  },
  {
    name: 'UDP flow: insert, up to 1 M flows',
    prepare() {
      const all = clients(4);
      let flows = new Flows(4);
      return {
        iterations: FLOWS,
        before() {
          flows = new Flows(4);
        },
        run(iterations) {
          for (let i = 0; i < iterations; i++) flows.open(all[i]!);
          return flows.size;
        },
      };
    },
  },
];

/** In random order, so that hardly one access finds its memory in a cache. */
function lookUp(family: 4 | 6): MicroBench {
  return {
    name: `UDP flow: lookup by IPv${family} address and port, 1 M flows`,
    prepare() {
      const all = clients(family);
      const flows = filled(family, all);
      const texts = all.slice(0, ADDRESSES).map(({ source }) => source.text);
      const dice = new Dice();
      // A datagram brings its address and port along: those are not to be waited for.
      const order = Uint32Array.from({ length: 1 << 20 }, () => dice.below(FLOWS));
      return {
        run(iterations) {
          let found = 0;
          for (let i = 0; i < iterations; i++) {
            const n = order[i & 0xfffff]!;
            const port = FIRST_PORT + (n >>> 13);
            if (flows.find(texts[n & (ADDRESSES - 1)]!, port) !== undefined) found++;
          }
          return found;
        },
      };
    },
  };
}

function filled(family: 4 | 6, all: readonly Client[]): Flows {
  const flows = new Flows(family);
  for (const client of all) flows.open(client);
  return flows;
}

function clients(family: 4 | 6): readonly Client[] {
  const sources = Array.from({ length: ADDRESSES }, (_, n) =>
    ipAddress(family === 4 ? `10.7.${n >> 8}.${n & 255}` : `2001:db8:7::${(n + 1).toString(16)}`),
  );
  return Array.from({ length: FLOWS }, (_, n) => ({
    source: sources[n & (ADDRESSES - 1)]!,
    port: FIRST_PORT + (n >>> 13),
  }));
}

function nothing(): void {
  // No sockets here.
}
