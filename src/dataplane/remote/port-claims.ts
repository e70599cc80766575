import type { ListeningSocket } from '../hand-over.js';
import type { WorkerProcess } from './worker-launcher.js';
import type { SocketMessage, TcpEnd, VerdictsMessage, WorkerMessage } from './worker-protocol.js';

/** Whether a port that no worker has can be listened on: undefined, or why not. */
export type PortTrial = (address: string, port: number) => Promise<string | undefined>;

interface Claim {
  readonly workers: Set<number>;
  readonly verdict: Promise<string | undefined>;
  /** Of another process; the workers get copies, as a cluster would give them, and this one stays for the next worker. */
  readonly inherited?: ListeningSocket;
}

/**
 * Tries out TCP ports before the first of several workers listens on them. Node's cluster could report a port that is
 * in use too, but after a failure it counts that worker's attempts apart from the others': the worker would get a
 * socket of its own from then on, which cannot be bound beside the shared one, and the failed one would never be
 * closed (lib/internal/cluster/child.js, `indexes`, in Node 20).
 */
export class PortClaims {
  readonly #trial: PortTrial;
  readonly #claims = new Map<string, Claim>();

  constructor(trial: PortTrial) {
    this.#trial = trial;
  }

  /** TCP sockets that workers get instead of opening such themselves. They are closed with the last claim. */
  inherit(sockets: readonly ListeningSocket[]): void {
    for (const inherited of sockets) {
      const key = keyOf(inherited);
      this.#claims.get(key)?.inherited?.release();
      this.#claims.set(key, { workers: new Set(), verdict: Promise.resolve(undefined), inherited });
    }
  }

  /** Closes what no worker wanted: connections would wait there for ever. */
  discard(): void {
    for (const [key, { workers, inherited }] of this.#claims) {
      if (inherited === undefined || workers.size > 0) continue;
      inherited.release();
      this.#claims.delete(key);
    }
  }

  /** Answers a worker's claims as long as it lives, and forgets them when it dies. */
  serve(worker: number, { channel, exited }: Pick<WorkerProcess, 'channel' | 'exited'>): void {
    channel.onMessage((message) => {
      const heard = message as WorkerMessage;
      if (heard.kind === 'release') this.#release(worker, keyOf(heard.end));
      if (heard.kind !== 'claim') return;
      void Promise.all(heard.ends.map((end) => this.#judge(worker, end))).then((errorCodes) => {
        for (const end of heard.ends) {
          const { inherited, workers } = this.#claims.get(keyOf(end)) ?? {};
          if (inherited === undefined || workers?.has(worker) !== true) continue;
          const { protocol, address, port, handle } = inherited;
          const message: SocketMessage = { kind: 'socket', protocol, address, port };
          channel.send(message, { handle, release: () => undefined });
        }
        const verdicts: VerdictsMessage = { kind: 'verdicts', id: heard.id, errorCodes };
        channel.send(verdicts);
      });
    });
    void exited.then(() => {
      for (const key of [...this.#claims.keys()]) this.#release(worker, key);
    });
  }

  async #judge(worker: number, end: TcpEnd): Promise<string | undefined> {
    const key = keyOf(end);
    let claim = this.#claims.get(key);
    if (claim === undefined) {
      claim = { workers: new Set(), verdict: this.#trial(end.address, end.port) };
      this.#claims.set(key, claim);
    }
    claim.workers.add(worker);
    const errorCode = await claim.verdict;
    if (errorCode !== undefined && this.#claims.get(key) === claim) this.#release(worker, key);
    return errorCode;
  }

  #release(worker: number, key: string): void {
    const claim = this.#claims.get(key);
    if (claim?.workers.delete(worker) === true && claim.workers.size === 0) {
      this.#claims.delete(key);
      claim.inherited?.release();
    }
  }
}

function keyOf({ address, port }: Pick<TcpEnd, 'address' | 'port'>): string {
  return `${address} ${port}`;
}
