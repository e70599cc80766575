import type { RemoteInfo } from 'node:dgram';
import type { DropReason } from '../../../model/events.js';
import type { FlowOrigin } from '../../../model/flow-origin.js';
import type { Clock } from '../../../runtime/clock.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { ListenerBinding } from '../listener.js';
import type { Arrival, Arrivals } from './arrivals.js';
import type { CapturedFeed, OriginReader } from './captured-feed.js';
import { WaitingClients } from './captured-waiting.js';
import { portOfKey, type ClientKeys } from './client-keys.js';
import { ClientMap } from './client-map.js';
import type { HeldMemory } from './held-memory.js';

/*
 * What a captured socket sees of a client (address, port) stands for one entry of the kernel's, and that for one client
 * endpoint and one port of the frontend. Entries come and go; of that, conntrack tells in another process, so that its
 * events arrive some time after the datagrams they belong to, in their own order. What can happen:
 *
 * - A first datagram is here before its NEW. It waits, with what follows of that client, and goes on in order when NEW
 *   comes. If NEW was lost, or is late, a listing has the entry: the kernel makes it before it delivers the datagram.
 * - DESTROY while the flow lives (an operator, a full table). The flow is suspended: what its backend says would leave
 *   untranslated, and the next datagram may be another's. NEW for the same client and frontend port restores it, for
 *   others ends it; else it ends as idle.
 * - DESTROY is late: datagrams of another client port, which the kernel has given the same port meanwhile, still feed
 *   the old flow. Nobody can tell them apart. It takes an entry destroyed before its time, and lasts until the event
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

type KnownFields = Omit<FlowOrigin, 'receiver' | 'seenPort' | 'remainingMs'>;

/** A class, for there may be hundreds of thousands. */
class Known implements KnownFields {
  id: number;
  readonly seenAddress: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Monotonic. */
  trustedUntilMs: number;
  /** The kernel has it no longer; its flow is suspended. */
  isGone = false;

  constructor(origin: KnownFields, trustedUntilMs: number) {
    this.id = origin.id;
    this.seenAddress = origin.seenAddress;
    this.source = origin.source;
    this.sourcePort = origin.sourcePort;
    this.destination = origin.destination;
    this.destinationPort = origin.destinationPort;
    this.trustedUntilMs = trustedUntilMs;
  }
}

/** The listener on the captured socket. */
export interface CapturedHost {
  received(datagram: Buffer, from: RemoteInfo): void;
  suspend(key: number): boolean;
  restore(key: number): void;
  endFlow(key: number): void;
  rejected(): void;
}

export interface CapturedArrivalsDeps {
  readonly clock: Clock;
  readonly heldMemory: HeldMemory;
  readonly feed: Pick<CapturedFeed, 'join' | 'leave' | 'ask'>;
  /** The listener's own. */
  readonly keys: ClientKeys;
}

/** Whose datagrams of one captured socket are, from what the kernel tells. */
export class CapturedArrivals implements Arrivals, OriginReader {
  readonly #deps: CapturedArrivalsDeps;
  readonly #receiver: string;
  readonly #known = new ClientMap<Known>();
  readonly #waiting: WaitingClients;
  #host: CapturedHost | undefined;
  /** Clients that events told of since a listing began. */
  #told: Set<string> | undefined;

  /** `receiver`: the socket's address. */
  constructor(deps: CapturedArrivalsDeps, receiver: string) {
    this.#deps = deps;
    this.#receiver = receiver;
    this.#waiting = new WaitingClients({
      clock: deps.clock,
      memory: deps.heldMemory,
      onOverdue: () => deps.feed.ask(),
      onDropped: () => this.#host?.rejected(),
    });
  }

  /** Origins known, and clients that wait for theirs. */
  get size(): { readonly known: number; readonly waiting: number } {
    return { known: this.#known.size, waiting: this.#waiting.size };
  }

  /** Before the first datagram. */
  serve(host: CapturedHost): void {
    this.#host = host;
    this.#deps.feed.join(this.#receiver, this);
  }

  of(
    datagram: Buffer,
    from: RemoteInfo,
    { captured }: Pick<ListenerBinding, 'captured'>,
  ): Arrival | 'held' | DropReason {
    const { clock, keys } = this.#deps;
    const address = withoutZone(from.address);
    const known = this.#known.get(keys.find(address, from.port));
    const nowMs = clock.monotonicMs();
    if (known === undefined || known.isGone || known.trustedUntilMs < nowMs) {
      return this.#waiting.add(clientOf(address, from.port), datagram, from) ? 'held' : 'unknown-origin';
    }
    known.trustedUntilMs = nowMs + TRUST_MS;
    const { source, sourcePort, destination, destinationPort } = known;
    const end = captured?.protocol === 'udp' ? captured.ports.at(destinationPort) : undefined;
    if (end?.frontend.address.text !== destination) return 'unknown-origin';
    const { rule, ruleIndex, frontend } = end;
    return { rule, ruleIndex, frontend, source, sourcePort, destination: frontend.address, destinationPort };
  }

  resumed(key: number, { tuple, clientAddress }: UdpFlowState): void {
    if (this.#known.get(key) !== undefined) return;
    const { source, sourcePort, destination, destinationPort } = tuple;
    this.#deps.keys.hold(clientAddress, portOfKey(key));
    const origin = {
      ...{ id: ANY_ID, seenAddress: clientAddress, sourcePort, destinationPort },
      ...{ source: source.text, destination: destination.text },
    };
    this.#known.add(key, new Known(origin, this.#deps.clock.monotonicMs() + TRUST_MS));
  }

  ended(key: number): void {
    const known = this.#known.get(key);
    if (known === undefined) return;
    // The flow has ended within the idle timeout of its last datagram, which the entry outlives.
    if (known.isGone) this.#remove(key, known);
    else known.trustedUntilMs = this.#deps.clock.monotonicMs() + TRUST_MS;
  }

  record(key: number): Pick<UdpFlowState, 'clientPort'> {
    return { clientPort: portOfKey(key) };
  }

  close(): void {
    this.#waiting.clear();
    this.#deps.feed.leave(this.#receiver);
  }

  onNew(origin: FlowOrigin): void {
    this.#told?.add(clientOf(origin.seenAddress, origin.seenPort));
    this.#learn(origin);
  }

  onGone(origin: FlowOrigin): void {
    const { seenAddress, seenPort } = origin;
    this.#told?.add(clientOf(seenAddress, seenPort));
    const key = this.#deps.keys.find(seenAddress, seenPort);
    const known = this.#known.get(key);
    if (known === undefined) return;
    const isThat = known.id === origin.id || (known.id === ANY_ID && isSame(known, origin));
    if (isThat) this.#lose(key, known);
  }

  listing(): void {
    this.#told = new Set();
  }

  listed(origins: readonly FlowOrigin[] | undefined): void {
    const told = this.#told ?? new Set<string>();
    this.#told = undefined;
    if (origins === undefined) return;
    const listed = new Set<number>();
    for (const origin of origins) {
      const { seenAddress, seenPort } = origin;
      if (told.has(clientOf(seenAddress, seenPort))) continue;
      this.#learn(origin);
      listed.add(this.#deps.keys.find(seenAddress, seenPort));
    }
    for (const [key, known] of this.#known.entries()) {
      if (!listed.has(key) && !told.has(clientOf(known.seenAddress, portOfKey(key)))) this.#lose(key, known);
    }
  }

  #learn(origin: FlowOrigin): void {
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
      this.#known.add(keys.hold(seenAddress, seenPort), new Known(origin, trustedUntilMs));
    }
    if (this.#waiting.size === 0) return;
    const waiting = this.#waiting.take(clientOf(seenAddress, seenPort));
    if (waiting === undefined) return;
    for (const datagram of waiting.datagrams) this.#host?.received(datagram, waiting.from);
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

function isSame(a: KnownFields, b: KnownFields): boolean {
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
