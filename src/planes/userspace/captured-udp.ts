import type { RuleSlot } from '../../flows/flow.js';
import type { IpAddress } from '../../model/address.js';
import type { DropReason } from '../../model/events.js';
import type { FlowOrigin, OriginFeed, OriginFollower } from '../../model/flow.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type { UdpFlowState } from '../contract.js';
import type { DatagramSource } from './sockets/datagram-socket.js';
import { ClientMap, portOfKey, type ClientKeys } from './udp/client-map.js';
import { WaitingDatagrams, type DatagramBudget } from './udp/upstream.js';

/*
 * What a captured socket sees of a client (address, port) stands for one entry of the kernel's, and that for one client
 * endpoint and one port of the frontend. Entries come and go; of that, conntrack tells in another process, so that its
 * events arrive some time after the datagrams they belong to, in their own order. What can happen:
 *
 * - A first datagram is here before its NEW. It waits, with what follows of that client, and is delivered in order when NEW
 *   comes. If NEW was lost, or is late, a listing has the entry: the kernel makes it before it delivers the datagram.
 * - DESTROY while the flow lives (an operator, a full table). The flow is suspended: what its backend says would leave
 *   untranslated, and the next datagram may be another's. NEW for the same client and frontend port restores it, for
 *   others ends it; else it ends as idle.
 * - DESTROY is late: datagrams of another client port, which the kernel has given the same port meanwhile, still feed
 *   the old flow. They cannot be told apart. It takes an entry destroyed before its time, and lasts until the event
 *   is here; entries outlive idle flows (`ct timeout`), so that none goes by itself under a flow.
 * - DESTROY is lost, or was never sent, since the entry is older than the following of events. NEW with another origin
 *   for a known client replaces what is known, and ends the flow first. Without NEW, what has not been used for so long
 *   that the entry may be gone is not trusted: the datagram waits for a listing.
 * - Events are lost. A listing puts all right: what it lacks goes as with DESTROY, what it has comes as with NEW.
 * - A listing is older than an event that came while it ran: the event stands. It is newer than one that is still to
 *   come: DESTROY of an entry that has been replaced has another id, and NEW of what is known changes nothing.
 * - Ids are made of the entry's address and the client's tuple: the same id is the same origin.
 */

/** Less than entries outlive idle flows, which is 60 s. */
const TRUST_MS = 45_000;
const LEAST_TRUST_MS = 1000;

/** Of a flow that came from another process, which did not tell the id. */
const ANY_ID = -1;

/** An origin, as long as it is kept. */
interface Known extends Omit<FlowOrigin, 'receiver' | 'seenPort' | 'remainingMs' | 'id'> {
  id: number;
  /** Monotonic. */
  trustedUntilMs: number;
  /** The kernel has it no longer; its flow is suspended. */
  isGone: boolean;
}

/** Where a client's first datagram comes from, where it was sent, and the rule that serves it. */
export interface Arrival {
  readonly slot: RuleSlot;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly destinationPort: number;
}

/** The listener on the captured socket. */
export interface CapturedHost {
  /** The rule that serves a port of its frontend. */
  slotOf(port: number): RuleSlot | undefined;
  onDatagram(datagram: Buffer, from: DatagramSource): void;
  suspend(key: number): boolean;
  restore(key: number): void;
  endFlow(key: number): void;
  rejected(): void;
}

export interface ClientResolverDeps {
  readonly clock: Clock;
  readonly budget: DatagramBudget;
  readonly feed: Pick<CapturedFeed, 'join' | 'leave' | 'ask'>;
  /** The listener's own. */
  readonly keys: ClientKeys;
}

/** Where the datagrams of one captured socket come from and were sent to, by what the kernel tells. */
export class ClientResolver {
  readonly #deps: ClientResolverDeps;
  readonly #receiver: string;
  readonly #known = new ClientMap<Known>();
  readonly #waiting: WaitingClients;
  #host: CapturedHost | undefined;

  /** `receiver`: the socket's address. */
  constructor(deps: ClientResolverDeps, receiver: string) {
    this.#deps = deps;
    this.#receiver = receiver;
    this.#waiting = new WaitingClients({
      clock: deps.clock,
      budget: deps.budget,
      onOverdue: () => deps.feed.ask(),
      onDropped: () => this.#host?.rejected(),
    });
  }

  /** Before the first datagram. */
  serve(host: CapturedHost): void {
    this.#host = host;
    this.#deps.feed.join(this.#receiver, this);
  }

  /** `held`: that is not known yet; the datagram is received again when it is. */
  resolve(datagram: Buffer, from: DatagramSource): Arrival | 'held' | DropReason {
    const { clock, keys } = this.#deps;
    const seen = withoutZone(from.address);
    const known = this.#known.get(keys.find(seen, from.port));
    const nowMs = clock.monotonicMs();
    if (known === undefined || known.isGone || known.trustedUntilMs < nowMs) {
      return this.#waiting.add(clientOf(seen, from.port), datagram, from) ? 'held' : 'unknown-origin';
    }
    known.trustedUntilMs = nowMs + TRUST_MS;
    const { source, sourcePort, destination, destinationPort } = known;
    const slot = this.#host?.slotOf(destinationPort);
    const address = slot?.rule.frontend.address;
    if (slot === undefined || address?.text !== destination) return 'unknown-origin';
    return { slot, source, sourcePort, destination: address, destinationPort };
  }

  /** A flow of that client has come from another process. */
  resumed(key: number, { tuple, clientAddress }: UdpFlowState): void {
    if (this.#known.get(key) !== undefined) return;
    const { sourcePort, destinationPort } = tuple;
    this.#deps.keys.hold(clientAddress, portOfKey(key));
    this.#known.add(key, {
      ...{ id: ANY_ID, seenAddress: clientAddress, source: tuple.source.text, sourcePort },
      ...{ destination: tuple.destination.text, destinationPort },
      ...{ trustedUntilMs: this.#deps.clock.monotonicMs() + TRUST_MS, isGone: false },
    });
  }

  /** A flow of that client has ended. */
  ended(key: number): void {
    const known = this.#known.get(key);
    if (known === undefined) return;
    // The flow has ended within the idle timeout of its last datagram, which the entry outlives.
    if (known.isGone) this.#remove(key, known);
    else known.trustedUntilMs = this.#deps.clock.monotonicMs() + TRUST_MS;
  }

  /** What another process needs to know of that client's flow, besides the flow. */
  record(key: number): Pick<UdpFlowState, 'clientPort'> {
    return { clientPort: portOfKey(key) };
  }

  /** The socket is closed. */
  close(): void {
    this.#waiting.clear();
    this.#deps.feed.leave(this.#receiver);
  }

  onGone(origin: FlowOrigin): void {
    const key = this.#deps.keys.find(origin.seenAddress, origin.seenPort);
    const known = this.#known.get(key);
    if (known === undefined) return;
    const isThat = known.id === origin.id || (known.id === ANY_ID && isSame(known, origin));
    if (isThat) this.#lose(key, known);
  }

  /** All origins, except for clients with events since: those are newer. */
  listed(origins: readonly FlowOrigin[], told: ReadonlySet<string>): void {
    const listed = new Set<number>();
    for (const origin of origins) {
      if (told.has(originKey(origin))) continue;
      this.onNew(origin);
      listed.add(this.#deps.keys.find(origin.seenAddress, origin.seenPort));
    }
    for (const [key, known] of this.#known.entries()) {
      const seen = { receiver: this.#receiver, seenAddress: known.seenAddress, seenPort: portOfKey(key) };
      if (!listed.has(key) && !told.has(originKey(seen))) this.#lose(key, known);
    }
  }

  onNew(origin: FlowOrigin): void {
    const { seenAddress, seenPort, id } = origin;
    const { keys, clock } = this.#deps;
    const key = keys.find(seenAddress, seenPort);
    const known = this.#known.get(key);
    const trustedUntilMs = clock.monotonicMs() + Math.max(LEAST_TRUST_MS, origin.remainingMs - 1000);
    if (known !== undefined && isSame(known, origin)) {
      known.id = id;
      known.trustedUntilMs = trustedUntilMs;
      if (known.isGone) this.#host?.restore(key);
      known.isGone = false;
    } else {
      if (known !== undefined) {
        this.#host?.endFlow(key);
        this.#remove(key, known);
      }
      const { source, sourcePort, destination, destinationPort } = origin;
      this.#known.add(keys.hold(seenAddress, seenPort), {
        ...{ id, seenAddress, source, sourcePort, destination, destinationPort },
        ...{ trustedUntilMs, isGone: false },
      });
    }
    if (this.#waiting.size === 0) return;
    const waiting = this.#waiting.take(clientOf(seenAddress, seenPort));
    if (waiting === undefined) return;
    for (const datagram of waiting.datagrams) this.#host?.onDatagram(datagram, waiting.from);
  }

  /** The kernel has it no longer. */
  #lose(key: number, known: Known): void {
    if (this.#host?.suspend(key) === true) known.isGone = true;
    else this.#remove(key, known);
  }

  #remove(key: number, { seenAddress }: Known): void {
    if (this.#known.delete(key)) this.#deps.keys.release(seenAddress);
  }
}

type Ends = Pick<FlowOrigin, 'source' | 'sourcePort' | 'destination' | 'destinationPort'>;

function isSame(a: Ends, b: Ends): boolean {
  return (
    a.sourcePort === b.sourcePort &&
    a.destinationPort === b.destinationPort &&
    a.source === b.source &&
    a.destination === b.destination
  );
}

/** conntrack knows no zones. */
function withoutZone(address: string): string {
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}

function clientOf(address: string, port: number): string {
  return `${address} ${port}`;
}

type SeenEnds = Pick<FlowOrigin, 'receiver' | 'seenAddress' | 'seenPort'>;

function originKey({ receiver, seenAddress, seenPort }: SeenEnds): string {
  return `${receiver} ${clientOf(seenAddress, seenPort)}`;
}

/** From one listing's start to the next one's: each reads the kernel's whole table. */
const LIST_EVERY_MS = 300;
const MOST_LIST_DELAY_MS = 10_000;

/** The origins of all captured sockets of one port, each told its own. It follows the feed while it has readers. */
export class CapturedFeed implements OriginFollower {
  readonly #feed: OriginFeed;
  readonly #clock: Clock;
  readonly #port: number;
  readonly #readers = new Map<string, ClientResolver>();
  readonly #backoff = new Backoff({ firstMs: LIST_EVERY_MS, maxMs: MOST_LIST_DELAY_MS });
  #stop: () => void = () => undefined;
  #cancelTimer: (() => void) | undefined;
  #notBeforeMs = 0;
  /** During a listing: those with events meanwhile. */
  #told: Set<string> | undefined;
  #isWanted = false;

  constructor({ feed, clock }: { readonly feed: OriginFeed; readonly clock: Clock }, port: number) {
    this.#feed = feed;
    this.#clock = clock;
    this.#port = port;
  }

  /** `receiver`: the socket's address. */
  join(receiver: string, reader: ClientResolver): void {
    const isFirst = this.#readers.size === 0;
    this.#readers.set(receiver, reader);
    if (isFirst) this.#stop = this.#feed.follow(this.#port, this);
    else this.ask();
  }

  leave(receiver: string): void {
    if (!this.#readers.delete(receiver) || this.#readers.size > 0) return;
    this.#stop();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#isWanted = false;
  }

  /** Has all origins listed, soon. */
  ask(): void {
    this.#isWanted = true;
    if (this.#told !== undefined || this.#cancelTimer !== undefined) return;
    const delayMs = this.#notBeforeMs - this.#clock.monotonicMs();
    if (delayMs <= 0) void this.#list();
    else this.#cancelTimer = this.#clock.setTimer(delayMs, () => void this.#list(), { unref: true });
  }

  onNew(origin: FlowOrigin): void {
    this.#told?.add(originKey(origin));
    this.#readers.get(origin.receiver)?.onNew(origin);
  }

  onGone(origin: FlowOrigin): void {
    this.#told?.add(originKey(origin));
    this.#readers.get(origin.receiver)?.onGone(origin);
  }

  onGap(): void {
    this.ask();
  }

  async #list(): Promise<void> {
    const told = new Set<string>();
    this.#told = told;
    this.#cancelTimer = undefined;
    this.#isWanted = false;
    this.#notBeforeMs = this.#clock.monotonicMs() + LIST_EVERY_MS;
    const readers = new Map(this.#readers);
    const origins = await this.#feed.list(this.#port);
    this.#told = undefined;
    const byReceiver = new Map([...readers.keys()].map((receiver) => [receiver, [] as FlowOrigin[]]));
    for (const origin of origins ?? []) byReceiver.get(origin.receiver)?.push(origin);
    for (const [receiver, reader] of readers) {
      if (origins === undefined || this.#readers.get(receiver) !== reader) continue;
      reader.listed(byReceiver.get(receiver) ?? [], told);
    }
    if (origins === undefined) {
      this.#notBeforeMs = this.#clock.monotonicMs() + this.#backoff.nextMs();
      this.#isWanted = true;
    } else this.#backoff.reset();
    if (this.#isWanted && this.#readers.size > 0) this.ask();
  }
}

/** An event comes within a millisecond, or some of a busy machine. */
const ASK_AFTER_MS = 50;

/** By then several listings have not had it either. */
const DROP_AFTER_MS = 1000;

const MOST_CLIENTS = 16_384;

interface Waiting {
  readonly from: DatagramSource;
  readonly sinceMs: number;
  readonly datagrams: WaitingDatagrams;
}

export interface WaitingClientsDeps {
  readonly clock: Clock;
  readonly budget: Pick<DatagramBudget, 'take' | 'give'>;
  /** Some wait longer than an event would take: it may be lost. Called again and again while they do. */
  readonly onOverdue: () => void;
  /** It has waited too long. */
  readonly onDropped: (datagram: Buffer) => void;
}

/** First datagrams of clients that are not known yet: a few of each client, in order, and not for long. */
export class WaitingClients {
  readonly #deps: WaitingClientsDeps;
  /** The longest waiting first. */
  readonly #waiting = new Map<string, Waiting>();
  #cancelTimer: (() => void) | undefined;

  constructor(deps: WaitingClientsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** False: there is no room. */
  add(client: string, datagram: Buffer, from: DatagramSource): boolean {
    const { clock, budget } = this.#deps;
    const present = this.#waiting.get(client);
    if (present === undefined && this.#waiting.size >= MOST_CLIENTS) return false;
    if (!budget.take(datagram)) return false;
    const waiting = present ?? { from, sinceMs: clock.monotonicMs(), datagrams: new WaitingDatagrams() };
    if (!waiting.datagrams.add(datagram)) {
      budget.give(datagram);
      return false;
    }
    if (present === undefined) this.#waiting.set(client, waiting);
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#look());
    return true;
  }

  /** Undefined: nothing of that client waits. */
  take(client: string): { readonly from: DatagramSource; readonly datagrams: readonly Buffer[] } | undefined {
    const waiting = this.#waiting.get(client);
    if (waiting === undefined) return undefined;
    this.#waiting.delete(client);
    const datagrams = waiting.datagrams.takeAll();
    for (const datagram of datagrams) this.#deps.budget.give(datagram);
    return { from: waiting.from, datagrams };
  }

  clear(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (const client of [...this.#waiting.keys()]) this.take(client);
  }

  #look(): void {
    const { clock, onOverdue, onDropped } = this.#deps;
    this.#cancelTimer = undefined;
    const nowMs = clock.monotonicMs();
    let isOverdue = false;
    for (const [client, { sinceMs }] of this.#waiting) {
      const ageMs = nowMs - sinceMs;
      isOverdue ||= ageMs >= ASK_AFTER_MS;
      if (ageMs < DROP_AFTER_MS) break;
      for (const datagram of this.take(client)?.datagrams ?? []) onDropped(datagram);
    }
    if (this.#waiting.size === 0) return;
    if (isOverdue) onOverdue();
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#look());
  }
}
