import { BalancerError, errorMessage } from '../model/errors.js';
import type { CliDeps, StartedBalancer } from './cli-deps.js';

/** Another reload is under way, by the admin API: how often and how many times to try again. */
const BUSY_RETRY_MS = 1000;
const BUSY_RETRIES = 60;

/**
 * Reloads that nobody waits for: SIGHUP and file watch. One at a time, the newest wish last; wishes that come before
 * the balancer runs are kept for then. A reload that fails leaves everything as it was, and the next one is tried all
 * the same: the balancer tells it in its log.
 */
export class ReloadQueue {
  readonly #deps: Pick<CliDeps, 'readText' | 'clock'>;
  readonly #path: string;
  #balancer: StartedBalancer | undefined;
  #next: { readonly cause: string; readonly text?: string } | undefined;
  #isBusy = false;
  #isStopped = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: Pick<CliDeps, 'readText' | 'clock'>, options: { readonly path: string }) {
    this.#deps = deps;
    this.#path = options.path;
  }

  /** Wants the file taken over; `text` where it has been read already. */
  request(cause: string, text?: string): void {
    this.#next = { cause, ...(text === undefined ? {} : { text }) };
    this.#run();
  }

  /** From now on reloads go to this balancer. */
  attach(balancer: StartedBalancer): void {
    this.#balancer = balancer;
    this.#run();
  }

  /** Starts no more reloads. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelRetry();
  }

  #run(): void {
    const balancer = this.#balancer;
    if (this.#isBusy || this.#isStopped || this.#next === undefined || balancer === undefined) return;
    const { cause, text } = this.#next;
    this.#next = undefined;
    this.#isBusy = true;
    void this.#reload(balancer, cause, text).then(() => {
      this.#isBusy = false;
      this.#run();
    });
  }

  /** Never rejects. */
  async #reload(balancer: StartedBalancer, cause: string, known: string | undefined): Promise<void> {
    const text = known ?? (await this.#read(balancer, cause));
    if (text === undefined) return;
    for (let retry = 0; !this.#isStopped; retry++) {
      try {
        await balancer.reload(text, cause);
        return;
      } catch (error) {
        const isConflict = error instanceof BalancerError && error.code === 'LB_CONFLICT';
        // A newer wish supersedes this one.
        if (!isConflict || retry >= BUSY_RETRIES || this.#next !== undefined) return;
        await new Promise<void>((resolve) => {
          const cancel = this.#deps.clock.setTimer(BUSY_RETRY_MS, resolve);
          this.#cancelRetry = () => {
            cancel();
            resolve();
          };
        });
      }
    }
  }

  async #read(balancer: StartedBalancer, cause: string): Promise<string | undefined> {
    try {
      return await this.#deps.readText(this.#path);
    } catch (error) {
      const message = `Configuration file "${this.#path}" cannot be read: ${errorMessage(error)}`;
      const options = { code: 'LB_CONFIG_UNREADABLE', source: 'config', cause: error } as const;
      balancer.reloadRefused(new BalancerError(message, options), cause);
      return undefined;
    }
  }
}
