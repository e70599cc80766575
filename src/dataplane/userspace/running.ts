import { WHEEL_TICK_MS } from '../../flow/idle-wheel.js';
import type { Clock } from '../../runtime/clock.js';
import { FlowEnforcement } from './flow-enforcement.js';
import type { FlowKeeper } from './flow-keeper.js';
import type { Listening } from './listening.js';
import type { SourcePorts } from './source-ports.js';

export interface RunningParts {
  readonly clock: Clock;
  readonly keeper: FlowKeeper;
  readonly listening: Listening;
  readonly sourcePorts: SourcePorts;
}

/** What a userspace plane has between start and stop. Its clock ticks from the beginning until cancelTimers. */
export class Running {
  readonly keeper: FlowKeeper;
  readonly listening: Listening;
  readonly sourcePorts: SourcePorts;
  readonly enforcement: FlowEnforcement;
  #cancelTick: () => void;

  constructor({ clock, keeper, listening, sourcePorts }: RunningParts) {
    this.keeper = keeper;
    this.listening = listening;
    this.sourcePorts = sourcePorts;
    this.enforcement = new FlowEnforcement(keeper);
    const tick = (): void => {
      keeper.tick();
      this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
    };
    this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
  }

  cancelTimers(): void {
    this.#cancelTick();
    this.enforcement.stop();
  }
}
