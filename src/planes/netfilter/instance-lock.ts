import { createServer, type Server } from 'node:net';
import { BalancerError, errorCode } from '../../model/errors.js';
import type { Clock } from '../../runtime/clock.js';

/** How often a process that waits for another to end looks whether it has. */
const AGAIN_MS = 500;

/**
 * Holds an instance's name in this network namespace, where its table is: a listening socket of an abstract name
 * (unix(7)), which goes with the process however that ends.
 */
export class InstanceLock {
  readonly #clock: Clock;
  readonly #instance: string;
  #server: Server | undefined;
  #cancelWait: (() => void) | undefined;

  constructor(deps: { readonly clock: Clock }, options: { readonly instance: string }) {
    this.#clock = deps.clock;
    this.#instance = options.instance;
  }

  /** Rejects with `LB_INSTANCE_RUNNING` where another process has it. Does nothing where this one has. */
  async take(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer((socket) => socket.destroy());
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(`\0haports/${this.#instance}`, resolve);
      });
    } catch (cause) {
      if (errorCode(cause) !== 'EADDRINUSE') throw cause;
      const message = `Instance "${this.#instance}" runs already, must be another: give each process on this machine its own dataPlane.instance`;
      throw new BalancerError(message, { code: 'LB_INSTANCE_RUNNING', source: 'system', cause });
    }
    // A name, not work to wait for.
    server.unref();
    this.#server = server;
  }

  /** Takes it once the process that has it has ended, or `release` was called. */
  takeWhenFree(): void {
    const again = (): void => {
      this.#cancelWait = this.#clock.setTimer(
        AGAIN_MS,
        () => {
          if (this.#cancelWait === undefined) return;
          this.take().then(() => {
            // Released while it was being taken.
            if (this.#cancelWait === undefined) this.release();
          }, again);
        },
        { unref: true },
      );
    };
    again();
  }

  /** Idempotent. */
  release(): void {
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    this.#server?.close();
    this.#server = undefined;
  }
}
