import { createSocket } from 'node:dgram';
import { ipAddress, type IpAddress } from '../../model/address.js';
import type { Clock } from '../../runtime/clock.js';
import { localCandidates } from '../../runtime/machine.js';

/** Routes change seldom; an answer this old is still asked for again. */
const FRESH_MS = 30_000;

/** Backends number far less; beyond this, the answers asked for longest ago are forgotten. */
const MAX_ANSWERS = 4096;

/** Sockets open at a time to ask ahead. */
const LEARN_BATCH = 64;

/** Any port will do: nothing is sent to it (RFC 863 discards what comes). */
const DISCARD_PORT = 9;

interface Answer {
  readonly source: IpAddress;
  readonly atMs: number;
}

/** Asks the system which local address it would use; rejects with the system's error (`ENETUNREACH`, ...). */
export type RouteLookup = (destination: IpAddress) => Promise<IpAddress>;

export interface RouteSourceDeps {
  readonly clock: Clock;
  /** @default lookUpRoute */
  readonly lookUp?: RouteLookup;
  /** Local addresses to fall back on, best first. @default localCandidates */
  readonly candidates?: (destination: IpAddress) => readonly IpAddress[];
}

/** Which local address the kernel would use towards a destination. Answers are kept for 30 s. */
export class RouteSource {
  readonly #clock: Clock;
  readonly #lookUp: RouteLookup;
  readonly #candidates: (destination: IpAddress) => readonly IpAddress[];
  readonly #answers = new Map<string, Answer>();
  readonly #asking = new Map<string, Promise<IpAddress>>();
  /** Until when the kernel is taken to have no port for a socket without an address, by destination. */
  readonly #portless = new Map<string, number>();

  constructor(deps: RouteSourceDeps) {
    this.#clock = deps.clock;
    this.#lookUp = deps.lookUp ?? lookUpRoute;
    this.#candidates = deps.candidates ?? localCandidates;
  }

  /** A fresh answer that is already known. */
  known(destination: IpAddress): IpAddress | undefined {
    const answer = this.#answers.get(destination.text);
    if (answer === undefined || this.#clock.monotonicMs() - answer.atMs >= FRESH_MS) return undefined;
    return answer.source;
  }

  /** Asks ahead, while the system can still be asked: before there are listeners on every port. Never rejects. */
  async learn(destinations: readonly IpAddress[]): Promise<void> {
    for (let start = 0; start < destinations.length; start += LEARN_BATCH) {
      const batch = destinations.slice(start, start + LEARN_BATCH);
      await Promise.allSettled(batch.map((destination) => this.sourceFor(destination)));
    }
  }

  /** The kernel had no port left for a socket to this destination, after a long search: let it not search again soon. */
  foundNoPort(destination: IpAddress): void {
    this.#portless.set(destination.text, this.#clock.monotonicMs() + FRESH_MS);
    const [oldest] = this.#portless.keys();
    if (this.#portless.size > MAX_ANSWERS && oldest !== undefined) this.#portless.delete(oldest);
  }

  /** Whether the kernel can be expected to choose the port of a socket to this destination. */
  hasPorts(destination: IpAddress): boolean {
    if (this.#portless.size === 0) return true;
    const untilMs = this.#portless.get(destination.text);
    if (untilMs === undefined) return true;
    if (this.#clock.monotonicMs() < untilMs) return false;
    this.#portless.delete(destination.text);
    return true;
  }

  /**
   * Rejects with the system's error where there is no route. Where the system cannot be asked (with every UDP port
   * bound by listeners it finds none to ask with) the last answer holds, or else the likeliest of the machine's own.
   */
  sourceFor(destination: IpAddress): Promise<IpAddress> {
    const known = this.known(destination);
    if (known !== undefined) return Promise.resolve(known);
    let asking = this.#asking.get(destination.text);
    if (asking === undefined) {
      asking = this.#ask(destination).finally(() => this.#asking.delete(destination.text));
      this.#asking.set(destination.text, asking);
    }
    return asking;
  }

  async #ask(destination: IpAddress): Promise<IpAddress> {
    try {
      const source = await this.#lookUp(destination);
      this.#remember(destination, source);
      return source;
    } catch (error) {
      if (!isLocalShortage(error)) throw error;
      const fallback = this.#answers.get(destination.text)?.source ?? this.#candidates(destination)[0];
      if (fallback === undefined) throw error;
      // Kept too, or every flow would ask again.
      this.#remember(destination, fallback);
      return fallback;
    }
  }

  #remember(destination: IpAddress, source: IpAddress): void {
    this.#answers.delete(destination.text);
    this.#answers.set(destination.text, { source, atMs: this.#clock.monotonicMs() });
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > MAX_ANSWERS && oldest !== undefined) this.#answers.delete(oldest);
  }
}

/** Connects a UDP socket, which sends nothing, and reads its local address. */
export function lookUpRoute(destination: IpAddress): Promise<IpAddress> {
  return new Promise((resolve, reject) => {
    const { family } = destination;
    const socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      lookup: (host, _options, answer) => answer(null, host, family),
    });
    socket.once('error', (error) => {
      closeQuietly(socket);
      reject(error);
    });
    socket.connect(DISCARD_PORT, destination.text, (error?: Error) => {
      if (error !== undefined) {
        closeQuietly(socket);
        reject(error);
        return;
      }
      const { address } = socket.address();
      closeQuietly(socket);
      resolve(ipAddress(address));
    });
  });
}

function closeQuietly(socket: ReturnType<typeof createSocket>): void {
  try {
    socket.close();
  } catch {
    // ERR_SOCKET_DGRAM_NOT_RUNNING: closed by its own error already.
  }
}

const LOCAL_SHORTAGES: ReadonlySet<string> = new Set([
  'EADDRINUSE',
  'EAGAIN',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOMEM',
]);

function isLocalShortage(error: unknown): boolean {
  return error instanceof Error && 'code' in error && LOCAL_SHORTAGES.has(String(error.code));
}
