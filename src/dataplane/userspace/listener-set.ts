import { errorCode, errorMessage } from '../../model/errors.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { ListenFailure } from '../data-plane.js';
import type { Listener, ListenerBinding, ListenerFactory } from './listener.js';
import { socketGroup, type ListenerPlan } from './listener-plan.js';

/** Sockets bound at a time; enough to be quick, few enough to keep the event loop turning. */
const OPEN_BATCH = 256;

/** Without a socket left, a listener could accept nothing: this share of the descriptors is kept for flows. */
const SHARE_FOR_LISTENERS = 0.9;

export interface ListenerSetOptions {
  /** Files and sockets this process may have open. @default no limit */
  readonly descriptorLimit?: number;
}

/** All listening sockets of a worker, kept equal to a plan. Sockets that stay are never closed. */
export class ListenerSet {
  readonly #factories: Readonly<Record<Protocol, ListenerFactory>>;
  readonly #most: number;
  readonly #open = new Map<string, Map<number, Listener>>();
  #plan: ListenerPlan = new Map();
  #closed = false;

  constructor(
    factories: Readonly<Record<Protocol, ListenerFactory>>,
    { descriptorLimit = Infinity }: ListenerSetOptions = {},
  ) {
    this.#factories = factories;
    this.#most = Math.floor(descriptorLimit * SHARE_FOR_LISTENERS);
  }

  /** Hands listeners that stay their new rule, closes those that go, opens what is missing. */
  async apply(plan: ListenerPlan): Promise<readonly ListenFailure[]> {
    this.#plan = plan;
    this.rebind(plan);
    for (const [key, listeners] of this.#open) {
      const wanted = plan.get(key);
      for (const [port, listener] of listeners) {
        if (wanted?.has(port) === true) continue;
        listeners.delete(port);
        listener.close();
      }
    }
    return this.#openMissing(plan);
  }

  /** Only hands listeners that stay their new rule: synchronous, so that no flow meets a stale one. */
  rebind(plan: ListenerPlan): void {
    for (const [key, listeners] of this.#open) {
      for (const [port, { binding }] of listeners) {
        const wanted = plan.get(key)?.get(port);
        if (wanted === undefined) continue;
        binding.rule = wanted.rule;
        binding.ruleIndex = wanted.ruleIndex;
        binding.frontend = wanted.frontend;
      }
    }
  }

  /** Takes no new flows on any socket, for good: what is just being opened is closed again. */
  close(): void {
    this.#closed = true;
    for (const listener of this.#all()) listener.close();
  }

  destroy(): void {
    this.#closed = true;
    for (const listener of this.#all()) listener.destroy();
    this.#open.clear();
  }

  /** Sockets open that this worker tells of. */
  count(protocol: Protocol): number {
    let count = 0;
    for (const { binding } of this.#all()) {
      if (binding.protocol === protocol && binding.reportedElsewhere !== true) count++;
    }
    return count;
  }

  /** By frontend name, sockets that this worker tells of. */
  census(): Record<string, { open: number; wanted: number }> {
    const census = new Map<string, { open: number; wanted: number }>();
    for (const [key, group] of this.#plan) {
      const open = this.#open.get(key);
      for (const [port, { frontend, reportedElsewhere }] of group) {
        if (reportedElsewhere === true) continue;
        const entry = census.get(frontend.name) ?? { open: 0, wanted: 0 };
        census.set(frontend.name, entry);
        entry.wanted++;
        if (open?.has(port) === true) entry.open++;
      }
    }
    return Object.fromEntries(census);
  }

  async #openMissing(plan: ListenerPlan): Promise<ListenFailure[]> {
    const missing: ListenerBinding[] = [];
    for (const [key, group] of plan) {
      const open = this.#open.get(key);
      for (const [port, binding] of group) if (open?.has(port) !== true) missing.push(binding);
    }
    // Low ports first, each over both protocols: what is beyond the limit is missing for both.
    missing.sort((a, b) => a.port - b.port);
    const room = Math.max(0, this.#most - this.#openSockets());
    const failures = missing.slice(room).map((binding) => failureOf(binding, 'EMFILE'));
    const possible = missing.slice(0, room);
    for (let start = 0; start < possible.length && !this.#closed; start += OPEN_BATCH) {
      const batch = possible.slice(start, start + OPEN_BATCH);
      const outcomes = await Promise.all(batch.map((binding) => this.#openOne(binding)));
      for (const failure of outcomes) if (failure !== undefined) failures.push(failure);
    }
    return failures;
  }

  async #openOne(binding: ListenerBinding): Promise<ListenFailure | undefined> {
    const { protocol, address, port } = binding;
    try {
      const listener = await this.#factories[protocol].open(binding);
      if (this.#closed) {
        listener.destroy();
        return undefined;
      }
      const key = socketGroup(protocol, address);
      const group = this.#open.get(key) ?? new Map<number, Listener>();
      this.#open.set(key, group);
      group.set(port, listener);
      return undefined;
    } catch (error) {
      return failureOf(binding, errorCode(error) ?? errorMessage(error));
    }
  }

  #openSockets(): number {
    let count = 0;
    for (const group of this.#open.values()) count += group.size;
    return count;
  }

  *#all(): Generator<Listener> {
    for (const group of this.#open.values()) yield* group.values();
  }
}

function failureOf({ rule, protocol, address, port }: ListenerBinding, code: string): ListenFailure {
  return { rule: rule.name, protocol, address: address.text, port, errorCode: code };
}
