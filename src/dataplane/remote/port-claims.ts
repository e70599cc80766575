import type { WorkerProcess } from './worker-launcher.js';
import type { TcpEnd, VerdictsMessage, WorkerMessage } from './worker-protocol.js';

/** Whether a port that no worker has can be listened on: undefined, or why not. */
export type PortTrial = (address: string, port: number) => Promise<string | undefined>;

interface Claim {
  readonly workers: Set<number>;
  readonly verdict: Promise<string | undefined>;
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

  /** Answers a worker's claims as long as it lives, and forgets them when it dies. */
  serve(worker: number, { channel, exited }: Pick<WorkerProcess, 'channel' | 'exited'>): void {
    channel.onMessage((message) => {
      const heard = message as WorkerMessage;
      if (heard.kind === 'release') this.#release(worker, keyOf(heard.end));
      if (heard.kind !== 'claim') return;
      void Promise.all(heard.ends.map((end) => this.#judge(worker, end))).then((errorCodes) => {
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
    if (claim?.workers.delete(worker) === true && claim.workers.size === 0) this.#claims.delete(key);
  }
}

function keyOf({ address, port }: TcpEnd): string {
  return `${address} ${port}`;
}
