import type { EventQueue } from '../../flows/event-queue.js';
import type { IpAddress, Protocol } from '../../model/address.js';
import type { BackendPool } from '../../model/configuration.js';
import type { SourcePortPressure } from '../../model/events.js';
import { portSetContains, type PortSet } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import type { BackendEndpoint } from '../../selection/picker.js';
import type { SourcePortUse } from '../contract.js';

/** Where a socket will connect from and to. The same source port serves different destinations at the same time. */
export interface SourcePortRequest {
  readonly protocol: Protocol;
  readonly backendId: string;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly destinationPort: number;
  /** To choose from: the pool's `sourcePorts`, of which a worker takes its part. */
  readonly ports: PortSet;
}

/** Of a socket from that address to a backend. */
export function portRequest(
  protocol: Protocol,
  source: IpAddress,
  { backendId, endpoint, pool }: DialTarget,
): SourcePortRequest {
  const { address: destination, port: destinationPort } = endpoint;
  return { protocol, backendId, source, destination, destinationPort, ports: pool.sourcePorts };
}

/** A backend to be reached, and the pool that says from where. */
export interface DialTarget {
  readonly backendId: string;
  readonly endpoint: BackendEndpoint;
  readonly pool: Pick<BackendPool, 'sourceAddresses' | 'sourcePorts'>;
}

/** The pool's source addresses of the backend's family, from the `turn`-th on and round. */
export function sourcesInTurn({ endpoint, pool }: DialTarget, turn: number): readonly IpAddress[] {
  const { sourceAddresses } = pool;
  if (sourceAddresses.length === 0) return sourceAddresses;
  const sources = sourceAddresses.filter(({ family }) => family === endpoint.address.family);
  const first = sources.length === 0 ? 0 : turn % sources.length;
  return [...sources.slice(first), ...sources.slice(0, first)];
}

export interface SourcePortsDeps {
  readonly clock: Clock;
  /** Gets `source-port-pressure`. */
  readonly events: Pick<EventQueue, 'push'>;
  /** In [0, 1), for where a destination's search starts. @default Math.random */
  readonly random?: () => number;
}

export interface SourcePortsOptions {
  /** Which of how many workers this is. Each has ports of its own. @default 0 */
  readonly worker: number;
  /** @default 1 */
  readonly workers: number;
}

/**
 * How long a released port is passed over. TCP: TIME_WAIT, 60 s in Linux (TCP_TIMEWAIT_LEN). UDP: late replies of the
 * flow before must not reach the next one.
 */
const REST_MS: Readonly<Record<Protocol, number>> = { tcp: 60_000, udp: 5_000 };

/**
 * A resting TCP port is given out early when no other is left, for only the side that closed first is in TIME_WAIT and
 * the kernel refuses where it must. Before a second has passed it always refuses (tcp_tw_reuse).
 */
const EARLY_TCP_REST_MS = 1_000;

/** Azure raises HighSnatPortUsage at 75 %; the gap below it keeps the event from repeating. */
const HIGH_SHARE = 0.75;
const NORMAL_SHARE = 0.7;

const SWEEP_MS = 5_000;

type Level = SourcePortPressure['pressure'];

/** One (protocol, source address, backend address, backend port): what a local port must be unique for. */
interface Destination {
  readonly protocol: Protocol;
  readonly taken: Set<number>;
  /** Port -> monotonic time of its release; oldest first. */
  readonly resting: Map<number, number>;
  /** By backend id: pools may have the same backend, and other ports to choose from. */
  readonly spaces: Map<string, Space>;
}

/** The ports that a pool may use towards a destination. */
interface Space {
  readonly pair: Pair;
  own: OwnPorts;
  /** Of them, those in use or at rest, whichever pool uses them. */
  used: number;
  /** Offset into the own ports at which the next search starts. */
  cursor: number;
  level: Level;
}

/** A backend and a source address: what pressure is reported for. */
interface Pair {
  readonly protocol: Protocol;
  readonly backendId: string;
  readonly sourceAddress: string;
  readonly spaces: Set<Space>;
  level: Level;
}

/**
 * Chooses local ports of upstream sockets, per (source address, backend address, backend port), passing over those in
 * use and those used a moment ago. It cannot know what other processes use: callers try again on `EADDRINUSE` and
 * `EADDRNOTAVAIL`. Memory grows with the ports in use and at rest and with nothing else.
 */
export class SourcePorts {
  readonly #clock: Clock;
  readonly #events: Pick<EventQueue, 'push'>;
  readonly #random: () => number;
  readonly #options: SourcePortsOptions;
  readonly #own = new WeakMap<PortSet, OwnPorts>();
  readonly #destinations = new Map<string, Destination>();
  readonly #pairs = new Map<string, Pair>();
  #sweptAtMs: number;

  constructor(deps: SourcePortsDeps, options: SourcePortsOptions = { worker: 0, workers: 1 }) {
    this.#options = options;
    this.#clock = deps.clock;
    this.#events = deps.events;
    // A random start keeps clear of what this process used before a restart (RFC 6056, 3.3.1).
    this.#random = deps.random ?? Math.random;
    this.#sweptAtMs = deps.clock.monotonicMs();
  }

  /** A port that is the caller's until it is released; undefined when none is left. */
  take(request: SourcePortRequest): number | undefined {
    this.#sweepNowAndThen();
    const destination = this.#destinationFor(request);
    const space = this.#spaceFor(destination, request);
    this.#wake(destination);
    const port = this.#fresh(destination, space, request) ?? this.#early(destination, space);
    if (port === undefined) this.#setLevel(space, 'exhausted');
    else this.#occupy(destination, port);
    return port;
  }

  /** A port of the caller's own choice; it is to be released like any other. False: it is taken. */
  claim(request: SourcePortRequest, port: number): boolean {
    const destination = this.#destinationFor(request);
    this.#spaceFor(destination, request);
    if (destination.taken.has(port)) return false;
    this.#occupy(destination, port);
    return true;
  }

  /** Gives a port back; it rests before it is given out again. One that is not taken is ignored. */
  release(request: SourcePortRequest, port: number): void {
    const destination = this.#destinations.get(keyOf(request));
    if (destination?.taken.delete(port) !== true) return;
    destination.resting.set(port, this.#clock.monotonicMs());
    this.#wake(destination);
    this.#judge(destination);
    this.#sweepNowAndThen();
  }

  /**
   * Use by (backend, source address, protocol). `used` counts ports in use and at rest towards the backend port that is
   * nearest to running out; `available` is how many there are in all.
   */
  uses(): SourcePortUse[] {
    this.#sweep();
    return [...this.#pairs.values()].map(({ backendId, protocol, sourceAddress, spaces }) => {
      let worst = { used: 0, available: 0 };
      for (const { used, own } of spaces) {
        const { size } = own;
        if (worst.available === 0 || used * worst.available > worst.used * size) {
          worst = { used, available: size };
        }
      }
      return { backendId, protocol, sourceAddress, ...worst };
    });
  }

  #destinationFor(request: SourcePortRequest): Destination {
    const key = keyOf(request);
    let destination = this.#destinations.get(key);
    if (destination === undefined) {
      const { protocol } = request;
      destination = { protocol, taken: new Set(), resting: new Map(), spaces: new Map() };
      this.#destinations.set(key, destination);
    }
    return destination;
  }

  #spaceFor(destination: Destination, request: SourcePortRequest): Space {
    const { ports } = request;
    let space = destination.spaces.get(request.backendId);
    if (space === undefined) {
      const pair = this.#pairFor(request);
      const own = this.#ownOf(ports);
      space = { pair, own, used: 0, cursor: Math.floor(this.#random() * own.size), level: 'normal' };
      countUsed(destination, space);
      pair.spaces.add(space);
      destination.spaces.set(request.backendId, space);
    } else if (space.own.ports !== ports) {
      // Changed by a reload.
      space.own = this.#ownOf(ports);
      countUsed(destination, space);
      if (space.cursor >= space.own.size) space.cursor = 0;
    }
    return space;
  }

  #ownOf(ports: PortSet): OwnPorts {
    let own = this.#own.get(ports);
    if (own === undefined) this.#own.set(ports, (own = new OwnPorts(ports, this.#options)));
    return own;
  }

  #pairFor({ protocol, backendId, source }: SourcePortRequest): Pair {
    const key = `${protocol}|${backendId}|${source.text}`;
    let pair = this.#pairs.get(key);
    if (pair === undefined) {
      pair = { protocol, backendId, sourceAddress: source.text, spaces: new Set(), level: 'normal' };
      this.#pairs.set(key, pair);
    }
    return pair;
  }

  /** The next port after the last one given out that is neither taken nor at rest. */
  #fresh({ taken, resting }: Destination, space: Space, request: SourcePortRequest): number | undefined {
    const { own } = space;
    if (space.used >= own.size) return undefined;
    for (let step = 0; step < own.size; step++) {
      const port = own.at(space.cursor);
      space.cursor = space.cursor + 1 >= own.size ? 0 : space.cursor + 1;
      if (!taken.has(port) && !resting.has(port) && !wouldMeetItself(request, port)) return port;
    }
    return undefined;
  }

  /** The TCP port that has rested longest, where that is long enough for the kernel to have a say. */
  #early({ protocol, resting }: Destination, { own }: Space): number | undefined {
    if (protocol !== 'tcp') return undefined;
    for (const [port, releasedAtMs] of resting) {
      if (this.#clock.monotonicMs() - releasedAtMs < EARLY_TCP_REST_MS) return undefined;
      if (own.has(port)) return port;
    }
    return undefined;
  }

  #occupy(destination: Destination, port: number): void {
    destination.taken.add(port);
    if (!destination.resting.delete(port)) countUse(destination, port, 1);
    this.#judge(destination);
  }

  /** Frees ports that have rested long enough. */
  #wake(destination: Destination): void {
    const untilMs = this.#clock.monotonicMs() - REST_MS[destination.protocol];
    for (const [port, releasedAtMs] of destination.resting) {
      if (releasedAtMs > untilMs) break;
      destination.resting.delete(port);
      countUse(destination, port, -1);
    }
  }

  #sweepNowAndThen(): void {
    if (this.#clock.monotonicMs() - this.#sweptAtMs >= SWEEP_MS) this.#sweep();
  }

  /** Forgets destinations that hold nothing. */
  #sweep(): void {
    this.#sweptAtMs = this.#clock.monotonicMs();
    for (const [key, destination] of this.#destinations) {
      this.#wake(destination);
      this.#judge(destination);
      if (destination.taken.size + destination.resting.size > 0) continue;
      this.#destinations.delete(key);
      for (const space of destination.spaces.values()) space.pair.spaces.delete(space);
    }
    for (const [key, pair] of this.#pairs) if (pair.spaces.size === 0) this.#pairs.delete(key);
  }

  #judge({ spaces }: Destination): void {
    for (const space of spaces.values()) {
      const share = space.used / space.own.size;
      if (share < NORMAL_SHARE) this.#setLevel(space, 'normal');
      else if (share >= HIGH_SHARE && space.level === 'normal') this.#setLevel(space, 'high');
    }
  }

  #setLevel(space: Space, level: Level): void {
    if (space.level === level) return;
    space.level = level;
    const { pair } = space;
    const worst = worstLevel(pair.spaces);
    if (pair.level === worst) return;
    pair.level = worst;
    this.#events.push({
      type: 'source-port-pressure',
      atMs: this.#clock.wallMs(),
      backendId: pair.backendId,
      sourceAddress: pair.sourceAddress,
      pressure: worst,
      used: space.used,
      available: space.own.size,
    });
  }
}

function keyOf({ protocol, source, destination, destinationPort }: SourcePortRequest): string {
  return `${protocol}|${source.text}|${destination.text}|${destinationPort}`;
}

function countUse({ spaces }: Destination, port: number, step: 1 | -1): void {
  for (const space of spaces.values()) if (space.own.has(port)) space.used += step;
}

function countUsed({ taken, resting }: Destination, space: Space): void {
  space.used = 0;
  for (const port of [...taken, ...resting.keys()]) if (space.own.has(port)) space.used++;
}

function worstLevel(spaces: ReadonlySet<Space>): Level {
  let worst: Level = 'normal';
  for (const { level } of spaces) {
    if (level === 'exhausted') return level;
    if (level === 'high') worst = level;
  }
  return worst;
}

/** A TCP socket that connects to its own address and port succeeds, with itself (RFC 9293, simultaneous open). */
function wouldMeetItself(request: SourcePortRequest, port: number): boolean {
  return port === request.destinationPort && request.source.text === request.destination.text;
}

/**
 * Which of a set's ports are a worker's own. Two workers must never choose the same port for the same backend: for UDP the
 * kernel would let them, and one would get the other's replies. A port belongs to a worker whatever set it is in, since
 * several pools may name the same backend, each with ports of its own.
 */
export class OwnPorts {
  readonly #ranges: readonly { readonly first: number; readonly count: number }[];
  readonly #step: number;
  readonly ports: PortSet;
  readonly size: number;

  constructor(ports: PortSet, { worker, workers }: SourcePortsOptions) {
    this.ports = ports;
    this.#step = workers;
    this.#ranges = ports.map(({ first, last }) => {
      const own = first + ((worker - (first % workers) + workers) % workers);
      return { first: own, count: Math.max(0, Math.floor((last - own) / workers) + 1) };
    });
    this.size = this.#ranges.reduce((sum, { count }) => sum + count, 0);
  }

  /** The port at an offset below the size. */
  at(offset: number): number {
    let rest = offset;
    for (const { first, count } of this.#ranges) {
      if (rest < count) return first + rest * this.#step;
      rest -= count;
    }
    throw new RangeError(`No port at offset ${offset}`);
  }

  has(port: number): boolean {
    const [any] = this.#ranges;
    return any !== undefined && (port - any.first) % this.#step === 0 && portSetContains(this.ports, port);
  }
}
