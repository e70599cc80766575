import type { Balancer } from '../control/balancer.js';
import type { Drains } from '../control/drains.js';
import type { ProbeHealth } from '../health/tracker.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { ControlEvent, UpgradeOutcome } from '../model/events.js';
import { canHandOver, type DataPlane } from '../planes/contract.js';
import { systemClock as clock } from '../runtime/clock.js';
import { startSuccessor, type PeerChannel } from '../runtime/peer.js';
import { adoptLegacy, takeLegacy, type Legacy } from '../upgrade/messages.js';
import { Predecessor } from '../upgrade/new-process.js';
import { Upgrader, type UpgradeRequest } from '../upgrade/old-process.js';

interface Known {
  readonly plane: DataPlane;
  readonly balancer: Balancer;
  readonly health: ProbeHealth;
  readonly drains: () => Drains;
}

export interface SuccessionParts extends Known {
  readonly onEvent: (event: ControlEvent) => void;
  /** Frees what only one process can have: resolves when all of it is free. */
  readonly release: () => Promise<void>;
}

/** The old process's side: starts its successor, and is superseded by it. */
export class Succession {
  readonly superseded: Promise<UpgradeRequest>;
  readonly #upgrader: Upgrader;
  readonly #release: () => Promise<void>;
  #resolve: (request: UpgradeRequest) => void = () => undefined;
  #isOver = false;

  constructor({ plane, balancer, health, drains, onEvent, release }: SuccessionParts) {
    this.superseded = new Promise((resolve) => (this.#resolve = resolve));
    this.#release = release;
    const { operator } = balancer;
    const node = process.argv0;
    this.#upgrader = new Upgrader({
      clock,
      plane: canHandOver(plane) ? plane : undefined,
      launch: () => startSuccessor({ node, nodeOptions: process.execArgv, args: process.argv.slice(1) }),
      legacy: () => takeLegacy({ clock, operator, health, drains: drains() }),
      isStopping: () => balancer.stopping,
      onEvent,
    });
  }

  /** Whether another process has taken this one's place. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** See Upgrader.upgrade. */
  async upgrade(request: UpgradeRequest): Promise<UpgradeOutcome> {
    const succession = await this.#upgrader.upgrade(request);
    this.#isOver = true;
    this.#resolve(request);
    // The admin API answers who asked for it before it closes.
    clock.setTimer(0, () => void this.#release().finally(() => succession.release()));
    return succession.outcome;
  }
}

/** The new process's side, until it serves. */
export class Takeover {
  readonly #predecessor: Predecessor;
  #legacy: Legacy | undefined;

  constructor(channel: PeerChannel) {
    this.#predecessor = new Predecessor(clock, channel);
  }

  /** Before the balancer starts: takes over the sockets, and what the old process knows. */
  async begin({ plane, balancer, health, drains }: Known): Promise<void> {
    if (!canHandOver(plane)) {
      const message = 'This data plane cannot take over sockets';
      throw new BalancerError(message, { code: 'LB_RESTART_NEEDED', source: 'usage' });
    }
    const { legacy, sockets } = await this.#predecessor.meet();
    this.#legacy = legacy;
    adoptLegacy(legacy, { clock, operator: balancer.operator, health, drains: drains() });
    await plane.inherit(sockets);
  }

  /** The last thing before the plane starts. */
  async flows(plane: DataPlane): Promise<void> {
    const flows = await this.#predecessor.takeOver();
    if (canHandOver(plane)) plane.inheritFlows(flows);
  }

  /** Once the plane serves. When it resolves, the old process has freed its ports; it waits for `leave`. */
  async finish({ balancer, drains }: Pick<Known, 'balancer' | 'drains'>): Promise<void> {
    await this.#predecessor.serving();
    const backends = balancer.configuration.backendPools.flatMap((pool) => pool.backends);
    for (const record of this.#legacy?.drains ?? []) {
      const backend = backends.find(({ id }) => id === record.backendId);
      if (backend !== undefined) drains().resume(record, backend);
    }
    const ids = new Set(backends.map(({ id }) => id));
    balancer.operator.retain(ids);
  }

  leave(): void {
    this.#predecessor.leave();
  }

  failed(error: unknown): void {
    this.#predecessor.failed(errorMessage(error));
  }
}
