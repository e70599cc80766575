import { PlaneHost } from '../../../../src/planes/workers/host.js';
import type { PeerProcess } from '../../../../src/runtime/peer.js';
import type { FakeClock } from '../../../support/fake-clock.js';
import { channelPair } from './channel-pair.js';
import { ScriptedPlane } from './scripted-plane.js';

/** A worker without a process: a real PlaneHost over a channel in memory. */
export class FakeWorker implements PeerProcess {
  readonly pid = 1;
  readonly plane = new ScriptedPlane();
  readonly ends = channelPair();
  readonly channel = this.ends.control;
  readonly exited: Promise<string>;
  kills = 0;
  /** Does not exit when its plane has stopped. */
  lingers = false;
  #exit: (evidence: string) => void = () => undefined;

  constructor(clock: FakeClock) {
    this.exited = new Promise((resolve) => (this.#exit = resolve));
    new PlaneHost({
      channel: this.ends.worker,
      clock,
      createPlane: () => this.plane,
      onStopped: () => {
        // The answer to the stop arrives first, as a pipe has it.
        if (!this.lingers) setImmediate(() => this.die('exit code 0'));
      },
    });
  }

  kill(): void {
    this.kills++;
    this.die('signal SIGKILL');
  }

  die(evidence: string): void {
    this.hangUp();
    this.exit(evidence);
  }

  /** The channel breaks; the exit is not known yet. */
  hangUp(): void {
    this.ends.control.close();
    // What is left of the worker no longer speaks.
    this.ends.worker.closed = true;
  }

  /** The exit is known; messages may still be on their way. */
  exit(evidence: string): void {
    this.#exit(evidence);
  }
}
