import type { IpAddress, Protocol } from '../../model/address.js';
import type { SourcePortPressure } from '../../model/events.js';
import { portSetContains, portSetSize, type PortSet } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import type { SourcePortUse } from '../contract.js';
import type { EventQueue } from './flow-manager.js';
import { portShares } from './listen-plan.js';

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

type Level = SourcePortPressure['level'];

/** Ports towards one destination from one source address. */
interface Space {
  readonly pair: Pair;
  ports: PortSet;
  size: number;
  /** Offset into the port set at which the next search starts. */
  cursor: number;
  readonly taken: Set<number>;
  /** Port -> monotonic time of its release; oldest first. */
  readonly resting: Map<number, number>;
  level: Level;
}

/** A backend and a source address: what pressure is told about. */
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
  readonly #shareOf: (ports: PortSet) => PortSet;
  readonly #spaces = new Map<string, Space>();
  readonly #pairs = new Map<string, Pair>();
  #sweptAtMs: number;

  constructor(deps: SourcePortsDeps, options: SourcePortsOptions = { worker: 0, workers: 1 }) {
    this.#shareOf = portShares(options.worker, options.workers);
    this.#clock = deps.clock;
    this.#events = deps.events;
    // A random start keeps clear of what this process used before a restart (RFC 6056, 3.3.1).
    this.#random = deps.random ?? Math.random;
    this.#sweptAtMs = deps.clock.monotonicMs();
  }

  /** A port that is the caller's until it is released; undefined when none is left. */
  take(request: SourcePortRequest): number | undefined {
    this.#sweepNowAndThen();
    const space = this.#spaceFor(request);
    this.#wake(space);
    const port = this.#fresh(space, request) ?? earlyTcp(space, request, this.#clock.monotonicMs());
    if (port === undefined) {
      this.#setLevel(space, 'exhausted');
      return undefined;
    }
    space.taken.add(port);
    space.resting.delete(port);
    this.#judge(space);
    return port;
  }

  /** A port of the caller's own choice; it is to be released like any other. False: somebody has it already. */
  claim(request: SourcePortRequest, port: number): boolean {
    const space = this.#spaceFor(request);
    if (space.taken.has(port) || !portSetContains(space.ports, port)) return !space.taken.has(port);
    space.taken.add(port);
    space.resting.delete(port);
    this.#judge(space);
    return true;
  }

  /** Gives a port back; it rests before it is given out again. One that is not taken is ignored. */
  release(request: SourcePortRequest, port: number): void {
    const space = this.#spaces.get(keyOf(request));
    if (space?.taken.delete(port) !== true) return;
    space.resting.set(port, this.#clock.monotonicMs());
    this.#wake(space);
    this.#judge(space);
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
      for (const space of spaces) {
        const used = usedOf(space);
        if (worst.available === 0 || used * worst.available > worst.used * space.size) {
          worst = { used, available: space.size };
        }
      }
      return { backendId, protocol, sourceAddress, ...worst };
    });
  }

  #spaceFor(request: SourcePortRequest): Space {
    const key = keyOf(request);
    const ports = this.#shareOf(request.ports);
    let space = this.#spaces.get(key);
    if (space === undefined) {
      const size = portSetSize(ports);
      space = {
        pair: this.#pairFor(request),
        ports,
        size,
        cursor: Math.floor(this.#random() * size),
        taken: new Set(),
        resting: new Map(),
        level: 'normal',
      };
      space.pair.spaces.add(space);
      this.#spaces.set(key, space);
    } else if (space.ports !== ports) {
      adoptPorts(space, ports);
    }
    return space;
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
  #fresh(space: Space, request: SourcePortRequest): number | undefined {
    if (usedOf(space) >= space.size) return undefined;
    for (let step = 0; step < space.size; step++) {
      const port = portAt(space.ports, space.cursor);
      space.cursor = space.cursor + 1 >= space.size ? 0 : space.cursor + 1;
      if (space.taken.has(port) || space.resting.has(port) || wouldMeetItself(request, port)) continue;
      return port;
    }
    return undefined;
  }

  /** Lets go of ports that have rested long enough. */
  #wake(space: Space): void {
    const untilMs = this.#clock.monotonicMs() - REST_MS[space.pair.protocol];
    for (const [port, releasedAtMs] of space.resting) {
      if (releasedAtMs > untilMs) break;
      space.resting.delete(port);
    }
  }

  #sweepNowAndThen(): void {
    if (this.#clock.monotonicMs() - this.#sweptAtMs >= SWEEP_MS) this.#sweep();
  }

  /** Forgets destinations that hold nothing. */
  #sweep(): void {
    this.#sweptAtMs = this.#clock.monotonicMs();
    for (const [key, space] of this.#spaces) {
      this.#wake(space);
      this.#judge(space);
      if (usedOf(space) > 0) continue;
      this.#spaces.delete(key);
      space.pair.spaces.delete(space);
    }
    for (const [key, pair] of this.#pairs) if (pair.spaces.size === 0) this.#pairs.delete(key);
  }

  #judge(space: Space): void {
    const share = usedOf(space) / space.size;
    if (share < NORMAL_SHARE) this.#setLevel(space, 'normal');
    else if (share >= HIGH_SHARE && space.level === 'normal') this.#setLevel(space, 'high');
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
      level: worst,
      used: usedOf(space),
      available: space.size,
    });
  }
}

function keyOf(request: SourcePortRequest): string {
  const { protocol, source, destination, destinationPort } = request;
  return `${protocol}|${source.text}|${destination.text}|${destinationPort}`;
}

function usedOf(space: Space): number {
  return space.taken.size + space.resting.size;
}

function worstLevel(spaces: ReadonlySet<Space>): Level {
  let worst: Level = 'normal';
  for (const { level } of spaces) {
    if (level === 'exhausted') return level;
    if (level === 'high') worst = level;
  }
  return worst;
}

/** After a reload. Ports outside the new set are forgotten: the kernel still knows who uses them. */
function adoptPorts(space: Space, ports: PortSet): void {
  space.ports = ports;
  space.size = portSetSize(ports);
  if (space.cursor >= space.size) space.cursor = 0;
  for (const port of space.taken) if (!portSetContains(ports, port)) space.taken.delete(port);
  for (const port of space.resting.keys()) if (!portSetContains(ports, port)) space.resting.delete(port);
}

/** The port that has rested longest, where that is long enough for the kernel to have a say. */
function earlyTcp(space: Space, request: SourcePortRequest, nowMs: number): number | undefined {
  if (request.protocol !== 'tcp') return undefined;
  for (const [port, releasedAtMs] of space.resting) {
    return nowMs - releasedAtMs >= EARLY_TCP_REST_MS ? port : undefined;
  }
  return undefined;
}

/** A TCP socket that connects to its own address and port succeeds, with itself (RFC 9293, simultaneous open). */
function wouldMeetItself(request: SourcePortRequest, port: number): boolean {
  return port === request.destinationPort && request.source.text === request.destination.text;
}

/** The port at an offset into the set; the offset is below the set's size. */
function portAt(ports: PortSet, offset: number): number {
  let rest = offset;
  for (const { first, last } of ports) {
    if (rest <= last - first) return first + rest;
    rest -= last - first + 1;
  }
  throw new RangeError(`No port at offset ${offset}`);
}
