import type { DrainRecord, Drains } from '../control/drains.js';
import type { Overrides } from '../control/overrides.js';
import type { ProbeHealth } from '../health/tracker.js';
import type { Protocol } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { BackendHealth, BackendOverride } from '../model/forwarding.js';
import type { UdpFlowState } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { PeerChannel } from '../runtime/peer.js';

interface Kinded {
  readonly kind: string;
}

/** Messages of an upgrade, awaited one after another by their kind. */
export class PeerMessages<M extends Kinded> {
  readonly #clock: Clock;
  readonly #arrived: M[] = [];
  #ended: Error | undefined;
  #wake: () => void = () => undefined;

  /** `onHandle` gets messages that bring a handle; they are not awaited. */
  constructor(clock: Clock, channel: PeerChannel, onHandle: (message: M, handle: unknown) => void) {
    this.#clock = clock;
    channel.onMessage((message, handle) => {
      // Both sides speak the same protocol, which the first message says.
      if (handle !== undefined) onHandle(message as M, handle);
      else this.#arrived.push(message as M);
      this.#wake();
    });
  }

  /** Rejects the waiting call and all later ones with this reason; the first reason counts. */
  end(why: string): void {
    this.#ended ??= failed(why);
    this.#wake();
  }

  /** The next message, which must be of this kind. Rejects when it is another, none comes in time, or none can come. */
  async next<K extends M['kind']>(kind: K, withinMs: number): Promise<Extract<M, { readonly kind: K }>> {
    const untilMs = this.#clock.monotonicMs() + withinMs;
    for (;;) {
      const message = this.#arrived.shift();
      if (message !== undefined) {
        if (message.kind !== kind) throw failed(unexpected(message, kind));
        return message as Extract<M, { readonly kind: K }>;
      }
      if (this.#ended !== undefined) throw this.#ended;
      const leftMs = untilMs - this.#clock.monotonicMs();
      if (leftMs <= 0) throw failed(`No "${kind}" came within ${withinMs} ms`);
      await this.#something(leftMs);
    }
  }

  #something(leftMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimer(leftMs, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

function unexpected(message: Kinded & { readonly message?: unknown }, wanted: string): string {
  return message.kind === 'failed' && typeof message.message === 'string'
    ? message.message
    : `The other process said "${message.kind}", must be "${wanted}"`;
}

function failed(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_UPGRADE_FAILED', source: 'system' });
}

/**
 * Version of the messages of an upgrade. It grows when one version could misunderstand another: then the old process
 * keeps serving, and only a restart brings the new version.
 */
export const UPGRADE_PROTOCOL = 2;

/** New process to old, in this order; `failed` at any time. */
export type SuccessorMessage =
  /** It runs, and its configuration can be used. */
  | { readonly kind: 'hello'; readonly protocol: number; readonly version: string }
  /** It has the sockets and a verdict on its backends: all that can fail slowly is done. */
  | { readonly kind: 'ready' }
  /** It takes connections and datagrams. */
  | { readonly kind: 'serving' }
  | { readonly kind: 'failed'; readonly message: string };

/** Comes with a raw handle. */
export interface HandedSocket {
  readonly kind: 'socket';
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
}

/** Old process to new, in this order. */
export type PredecessorMessage =
  | { readonly kind: 'state'; readonly state: ControlState }
  | HandedSocket
  /** All sockets have been sent: so many. */
  | { readonly kind: 'sockets-sent'; readonly count: number }
  /** The old process no longer reads UDP. */
  | { readonly kind: 'take-over'; readonly udpFlows: readonly UdpFlowState[] }
  /** The admin and metrics ports are free. */
  | { readonly kind: 'released' };

/** State of a control process that is not in its configuration, for its successor. Plain data. */
export interface ControlState {
  /** The old process's monotonic clock at that moment: times in `health` count from the same point. */
  readonly monotonicMs: number;
  /** By backend id. */
  readonly overrides: ReadonlyMap<string, BackendOverride>;
  readonly drains: readonly DrainRecord[];
  /** By probe key. */
  readonly health: ReadonlyMap<string, BackendHealth>;
}

export interface HandoverParts {
  readonly clock: Clock;
  readonly overrides: Overrides;
  readonly drains: Drains;
  readonly health: ProbeHealth;
}

export function controlStateOf({ clock, overrides, drains, health }: HandoverParts): ControlState {
  const known = new Map<string, BackendHealth>();
  for (const { key, health: one } of health.statuses()) if (one !== undefined) known.set(key, one);
  return {
    monotonicMs: clock.monotonicMs(),
    overrides: overrides.record(),
    drains: drains.records(),
    health: known,
  };
}

/** To be called before the balancer starts; `resumeDrains` once it serves. */
export function adoptControlState(
  { monotonicMs, overrides, health }: ControlState,
  parts: HandoverParts,
): void {
  parts.overrides.restore(overrides);
  const shiftMs = parts.clock.monotonicMs() - monotonicMs;
  parts.health.inherit(new Map([...health].map(([key, one]) => [key, shifted(one, shiftMs)])));
}

/** Continues the drains of backends that are still configured, and forgets overrides of the others. */
export function resumeDrains(
  state: ControlState,
  { overrides, drains }: Pick<HandoverParts, 'overrides' | 'drains'>,
  { backendPools }: Configuration,
): void {
  const backends = new Map(backendPools.flatMap((pool) => pool.backends.map((one) => [one.id, one])));
  for (const record of state.drains) {
    const backend = backends.get(record.backendId);
    if (backend !== undefined) drains.resume(record, backend);
  }
  overrides.retain(new Set(backends.keys()));
}

/** With its times on another process's monotonic clock. */
export function shifted(health: BackendHealth, shiftMs: number): BackendHealth {
  return {
    ...health,
    recentChangesMs: health.recentChangesMs.map((atMs) => atMs + shiftMs),
    ...(health.heldUntilMs === undefined ? {} : { heldUntilMs: health.heldUntilMs + shiftMs }),
  };
}
