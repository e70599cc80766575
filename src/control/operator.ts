import type { DrainStatus } from '../api/views.js';
import { findBackend, type AdminState, type Backend, type BackendPool } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { ControlEvent } from '../model/events.js';
import type { DrainRequest } from '../model/forwarding.js';
import type { Balancer } from './balancer.js';
import type { Drains } from './drains.js';

export interface OperatorDeps {
  readonly balancer: Balancer;
  readonly drains: Drains;
  readonly onEvent: (event: ControlEvent) => void;
}

/**
 * What operators do to backends while the process runs. Everything holds from the next flow on when a call resolves,
 * and survives reloads that keep the backend.
 */
export class Operator {
  readonly #deps: OperatorDeps;

  constructor(deps: OperatorDeps) {
    this.#deps = deps;
  }

  /** `configured`: what the configuration says again. */
  async setAdminState(name: string, state: AdminState | 'configured'): Promise<void> {
    const { balancer, onEvent } = this.#deps;
    const { pool, backend } = findBackend(balancer.configuration, name);
    const from = balancer.operator.adminState(backend);
    balancer.operator.setAdminState(backend.id, state);
    const to = balancer.operator.adminState(backend);
    if (from !== to) onEvent({ type: 'admin-changed', ...labels(pool, backend), from, to });
    await balancer.refresh();
  }

  /** 0-256. `configured`: what the configuration or the probe's header says again. */
  async setWeight(name: string, weight: number | 'configured'): Promise<void> {
    const { balancer, onEvent } = this.#deps;
    const { pool, backend } = findBackend(balancer.configuration, name);
    const from = balancer.operator.weight(backend) ?? 'configured';
    balancer.operator.setWeight(backend.id, weight);
    if (from !== weight) onEvent({ type: 'weight-changed', ...labels(pool, backend), from, to: weight });
    await balancer.refresh();
  }

  /** Rejects with `LB_CONFLICT` where the pool would fall below its minimumHealthy, unless `force`. */
  async drain(name: string, request: DrainRequest & { readonly force: boolean }): Promise<DrainStatus> {
    const { balancer, drains } = this.#deps;
    const { force, ...wishes } = request;
    const { pool, backend } = findBackend(balancer.configuration, name);
    if (!force) this.#assertEnoughLeft(pool, backend);
    return drains.start(pool.name, backend, wishes);
  }

  async cancelDrain(name: string): Promise<void> {
    const { balancer, drains } = this.#deps;
    const { backend } = findBackend(balancer.configuration, name);
    if (await drains.cancel(backend.id)) return;
    throw new BalancerError(`Backend "${name}" is not being drained`, {
      code: 'LB_NOT_FOUND',
      source: 'usage',
    });
  }

  /** In the view where the fewest would be left. */
  #assertEnoughLeft(pool: BackendPool, backend: Backend): void {
    const views = this.#deps.balancer.state?.views.filter((view) => view.pool === pool) ?? [];
    for (const view of views) {
      const left = view.backends.filter(
        (member) => member.eligible && member.backend.id !== backend.id,
      ).length;
      if (left >= pool.minimumHealthy) continue;
      throw new BalancerError(
        `Cannot drain "${backend.name}": ${left} of pool "${pool.name}" would be left, must be at least ${pool.minimumHealthy} (force drains it all the same)`,
        { code: 'LB_CONFLICT', source: 'usage' },
      );
    }
  }
}

function labels(pool: BackendPool, backend: Backend) {
  return { pool: pool.name, backendId: backend.id, backendName: backend.name };
}
