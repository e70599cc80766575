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
 * A client (address and port) as a captured socket sees it stands for one conntrack entry, and that for one client
 * endpoint and one port of the frontend. Entries come and go, and conntrack reports that to another process: its events
 * arrive some time after the datagrams they belong to, in an order of their own. What can happen:
 *
 * - A first datagram arrives before its NEW. It waits, with what follows from that client, and is delivered in order when
 *   NEW arrives. If NEW is lost or late, a listing has the entry: the kernel makes it before it delivers the datagram.
 * - DESTROY while the flow lives (an operator, a full table). The flow is suspended: replies of its backend would leave
 *   untranslated, and the next datagram may belong to another client. NEW for the same client endpoint and frontend port
 *   restores the flow, any other NEW ends it; without one it ends as idle.
 * - DESTROY is late: datagrams of another client, to which the kernel has given the same port meanwhile, still feed the
 *   old flow. They cannot be told apart. This takes an entry destroyed before its time, and lasts until the event
 *   arrives; entries outlive idle flows (`ct timeout`), so that none expires under a flow.
 * - DESTROY is lost, or was never sent, since the entry is older than the subscription. NEW with another origin for a
 *   known client replaces the origin, and ends the flow first. Without NEW, an origin that has not been used for so long
 *   that the entry may be gone is not trusted: the datagram waits for a listing.
 * - Events are lost. A listing puts all right: an entry that it lacks counts as DESTROY, one that it has as NEW.
 * - A listing is older than an event that came while it ran: the event stands. It is newer than one that is still to
 *   come: DESTROY of an entry that has been replaced has another id, and NEW of a known origin changes nothing.
 * - Ids are made of the entry's address and the client's tuple: the same id is the same origin.
 */

/** An event arrives within a millisecond, or some on a busy machine. */
const ASK_AFTER_MS = 50;

/** By then several listings have not had the client either. */
const DROP_AFTER_MS = 1000;

const MOST_WAITING_CLIENTS = 16_384;

/** Less than entries outlive idle flows, which is 60 s. */
const TRUST_MS = 45_000;
const LEAST_TRUST_MS = 1000;

/** Of a flow that came from another process, which does not hand the id over. */
const ANY_ID = -1;

/** An origin, as long as it is kept. */
interface Known extends Omit<FlowOrigin, 'receiver' | 'seenPort' | 'remainingMs' | 'id'> {
  id: number;
  /** Monotonic. */
  trustedUntilMs: number;
  /** The kernel no longer has it; its flow is suspended. */
  isGone: boolean;
}

/** First datagrams of a client without a trusted origin. */
interface Waiting {
  readonly from: DatagramSource;
  readonly sinceMs: number;
  readonly datagrams: WaitingDatagrams;
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

/** Where the datagrams of one captured socket come from and were sent to, as conntrack reports it. */
export class ClientResolver {
  readonly #deps: ClientResolverDeps;
  readonly #receiver: string;
  readonly #known = new ClientMap<Known>();
  /** By client; the longest waiting first. */
  readonly #waiting = new Map<string, Waiting>();
  #cancelTimer: (() => void) | undefined;
  #host: CapturedHost | undefined;

  /** `receiver`: the socket's address. */
  constructor(deps: ClientResolverDeps, receiver: string) {
    this.#deps = deps;
    this.#receiver = receiver;
  }

  /** Before the first datagram. */
  serve(host: CapturedHost): void {
    this.#host = host;
    this.#deps.feed.join(this.#receiver, this);
  }

  /** `held`: the origin is not known yet; the datagram is received again when it is. */
  resolve(datagram: Buffer, from: DatagramSource): Arrival | 'held' | DropReason {
    const { clock, keys } = this.#deps;
    const seen = withoutZone(from.address);
    const known = this.#known.get(keys.find(seen, from.port));
    const nowMs = clock.monotonicMs();
    if (known === undefined || known.isGone || known.trustedUntilMs < nowMs) {
      return this.#hold(clientOf(seen, from.port), datagram, from) ? 'held' : 'unknown-origin';
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

  /** What another process needs to know about that client's flow, besides the flow. */
  record(key: number): Pick<UdpFlowState, 'clientPort'> {
    return { clientPort: portOfKey(key) };
  }

  /** The socket is closed. */
  close(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (const client of [...this.#waiting.keys()]) this.#takeWaiting(client);
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
    const client = clientOf(seenAddress, seenPort);
    const { from } = this.#waiting.get(client) ?? {};
    for (const datagram of this.#takeWaiting(client)) if (from) this.#host?.onDatagram(datagram, from);
  }

  /** Keeps a few datagrams of a client, in order and not for long. False: there is no room. */
  #hold(client: string, datagram: Buffer, from: DatagramSource): boolean {
    const { clock, budget } = this.#deps;
    const present = this.#waiting.get(client);
    if (present === undefined && this.#waiting.size >= MOST_WAITING_CLIENTS) return false;
    if (!budget.take(datagram)) return false;
    const waiting = present ?? { from, sinceMs: clock.monotonicMs(), datagrams: new WaitingDatagrams() };
    if (!waiting.datagrams.add(datagram)) {
      budget.give(datagram);
      return false;
    }
    if (present === undefined) this.#waiting.set(client, waiting);
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#lookAfterWaiting());
    return true;
  }

  #takeWaiting(client: string): readonly Buffer[] {
    const datagrams = this.#waiting.get(client)?.datagrams.takeAll() ?? [];
    this.#waiting.delete(client);
    for (const datagram of datagrams) this.#deps.budget.give(datagram);
    return datagrams;
  }

  /** Drops what has waited too long, and asks for a listing where an event may have been lost. */
  #lookAfterWaiting(): void {
    const { clock, feed } = this.#deps;
    this.#cancelTimer = undefined;
    const nowMs = clock.monotonicMs();
    let isOverdue = false;
    for (const [client, { sinceMs }] of this.#waiting) {
      const ageMs = nowMs - sinceMs;
      isOverdue ||= ageMs >= ASK_AFTER_MS;
      if (ageMs < DROP_AFTER_MS) break;
      this.#takeWaiting(client).forEach(() => this.#host?.rejected());
    }
    if (this.#waiting.size === 0) return;
    if (isOverdue) feed.ask();
    this.#cancelTimer ??= clock.setTimer(ASK_AFTER_MS, () => this.#lookAfterWaiting());
  }

  /** The kernel no longer has it. */
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

/** Passes the origins of one port on to its captured sockets, each its own. It follows the feed while it has readers. */
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

  /** Requests a listing of all origins, soon. */
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
