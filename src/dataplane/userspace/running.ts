import { WHEEL_TICK_MS } from '../../flow/idle-wheel.js';
import type { PortSet } from '../../model/port-set.js';
import type { Clock } from '../../runtime/clock.js';
import type { ListenFailure } from '../data-plane.js';
import type { FlowKeeper } from './flow-keeper.js';
import type { ListenerPlan } from './listener-plan.js';
import type { ListenerSet } from './listener-set.js';
import type { SourcePorts } from './source-ports.js';

export interface RunningParts {
  readonly clock: Clock;
  readonly keeper: FlowKeeper;
  readonly listeners: ListenerSet;
  readonly sourcePorts: SourcePorts;
}

/** What a userspace plane has between start and stop. Its clock ticks from the beginning until cancelTimers. */
export class Running {
  readonly keeper: FlowKeeper;
  readonly listeners: ListenerSet;
  readonly sourcePorts: SourcePorts;
  plan: ListenerPlan = new Map();
  /** By address, of all workers together. */
  plannedUdpPorts: ReadonlyMap<string, PortSet> = new Map();
  /** Of the plan, also those that another worker reports. */
  failures: readonly ListenFailure[] = [];
  cancelRetry: () => void = () => undefined;
  #cancelTick: () => void;

  constructor({ clock, keeper, listeners, sourcePorts }: RunningParts) {
    this.keeper = keeper;
    this.listeners = listeners;
    this.sourcePorts = sourcePorts;
    const tick = (): void => {
      keeper.tick();
      this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
    };
    this.#cancelTick = clock.setTimer(WHEEL_TICK_MS, tick);
  }

  cancelTimers(): void {
    this.#cancelTick();
    this.cancelRetry();
  }
}
