import type { Frontend } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { Clock } from '../../runtime/clock.js';
import type { ListenFailure } from '../data-plane.js';
import type { Listener, ListenerBinding, ListenerFactory } from './listener.js';
import { batchesOf, failureOf, isInUse, ListenerOpening } from './listener-opening.js';
import { isPlanned, plannedBinding, type ListenerPlan } from './listener-plan.js';
import { OpenListeners } from './open-listeners.js';
import { mostListeners } from './socket-budget.js';

export interface ListenerSetDeps {
  readonly clock: Clock;
  readonly factories: Readonly<Record<Protocol, ListenerFactory>>;
}

export interface ListenerSetOptions {
  /** Files and sockets this process may have open. @default no limit */
  readonly descriptorLimit?: number;
  /** How long others that share sockets with this process may take to close one that goes everywhere. @default 0 */
  readonly handOverMs?: number;
}

/** What is open for a plan that has not been applied yet. */
interface Prepared {
  readonly plan: ListenerPlan;
  readonly listeners: OpenListeners;
  /** Only own listeners that go are in their way. */
  obstructed: readonly ListenerBinding[];
}

/** All listening sockets of a worker, kept equal to a plan. Sockets that stay are never closed. */
export class ListenerSet {
  readonly #opening: ListenerOpening;
  readonly #most: number;
  readonly #handOverMs: number;
  readonly #open = new OpenListeners();
  #plan: ListenerPlan = new Map();
  #prepared: Prepared | undefined;

  constructor(
    { clock, factories }: ListenerSetDeps,
    { descriptorLimit, handOverMs = 0 }: ListenerSetOptions = {},
  ) {
    this.#opening = new ListenerOpening(factories, clock);
    this.#most = mostListeners(descriptorLimit);
    this.#handOverMs = handOverMs;
  }

  /** Hands listeners that stay their new rule, closes those that go, opens what is missing. What can be is prepared. */
  async apply(plan: ListenerPlan): Promise<readonly ListenFailure[]> {
    this.#plan = plan;
    const prepared = [...(this.#prepared?.listeners.all() ?? [])];
    this.#prepared = undefined;
    for (const listener of prepared) this.#open.add(listener);
    this.rebind(plan);
    for (const listener of prepared) listener.serve();
    for (const [listener, wanted] of this.#open.against(plan)) {
      if (wanted === undefined) this.#close(listener);
    }
    return this.#openAll(this.#open.missing(plan), (listener) => {
      this.#open.add(listener);
      listener.serve();
    });
  }

  /**
   * Opens what a plan adds to the present one, all of it or nothing, and serves nobody there before the plan is
   * applied. What the present plan wanted in vain, or what is excused, it leaves to apply. Resolves with what is in the
   * way.
   */
  async prepare(
    plan: ListenerPlan,
    isExcused: (binding: ListenerBinding) => boolean = () => false,
  ): Promise<readonly ListenFailure[]> {
    this.abandon();
    const prepared: Prepared = { plan, listeners: new OpenListeners(), obstructed: [] };
    this.#prepared = prepared;
    const added = this.#open
      .missing(plan)
      .filter((binding) => !isPlanned(this.#plan, binding) && !isExcused(binding));
    // Known beforehand: thousands of sockets would be opened only to be closed again.
    const beyond = this.#takeBeyond(added);
    const failures =
      beyond.length > 0
        ? beyond.map(beyondLimit)
        : await this.#opening.open(added, (listener) => prepared.listeners.add(listener));
    const isObstructed = (failure: ListenFailure): boolean => {
      const binding = isInUse(failure) ? plannedBinding(plan, failure) : undefined;
      return binding !== undefined && this.#open.obstructing(binding, plan).length > 0;
    };
    const lasting = failures.filter((failure) => !isObstructed(failure));
    if (lasting.length > 0) this.abandon();
    else prepared.obstructed = failures.flatMap((failure) => plannedBinding(plan, failure) ?? []);
    return lasting;
  }

  /**
   * Opens what was prepared but for own listeners in its way (of a wildcard address where now a single one is served,
   * or the other way round), closing those first: nobody is served there in between. All or nothing, as prepare.
   */
  async handOver(): Promise<readonly ListenFailure[]> {
    const prepared = this.#prepared;
    if (prepared === undefined) return [];
    const closed: ListenerBinding[] = [];
    for (const batch of batchesOf(prepared.obstructed)) {
      const inTheWay = new Set(batch.flatMap((one) => this.#open.obstructing(one, prepared.plan)));
      for (const listener of inTheWay) {
        closed.push(listener.binding);
        this.#close(listener);
      }
      const failures = await this.#opening.openPatiently(batch, this.#handOverMs, (listener) =>
        prepared.listeners.add(listener),
      );
      if (failures.length === 0) continue;
      this.abandon();
      await this.#opening.openPatiently(closed, this.#handOverMs, (listener) => {
        this.#open.add(listener);
        listener.serve();
      });
      return failures;
    }
    prepared.obstructed = [];
    return [];
  }

  /** Closes what was prepared and not applied. */
  abandon(): void {
    const listeners = this.#prepared?.listeners;
    this.#prepared = undefined;
    for (const listener of listeners?.all() ?? []) listener.close();
  }

  /** Only hands listeners that stay their new rule: synchronous, so that no flow meets a stale one. */
  rebind(plan: ListenerPlan): void {
    for (const [{ binding }, wanted] of this.#open.against(plan)) {
      if (wanted === undefined) continue;
      binding.rule = wanted.rule;
      binding.ruleIndex = wanted.ruleIndex;
      binding.frontend = wanted.frontend;
      if (wanted.captured !== undefined) binding.captured = wanted.captured;
    }
  }

  /** Takes no new flows on any socket, for good: what is just being opened is closed again. */
  close(): void {
    this.#opening.end();
    this.abandon();
    for (const listener of this.#open.all()) listener.close();
  }

  destroy(): void {
    this.#opening.end();
    this.abandon();
    for (const listener of this.#open.all()) listener.destroy();
    this.#open.clear();
  }

  all(): readonly Listener[] {
    return [...this.#open.all()];
  }

  /** Sockets open that this worker tells of. */
  count(protocol: Protocol): number {
    let count = 0;
    for (const { binding } of this.#open.all()) {
      if (binding.protocol === protocol && binding.reportedElsewhere !== true) count++;
    }
    return count;
  }

  /** By frontend name, sockets that this worker tells of. */
  census(): Record<string, { open: number; wanted: number }> {
    const census = new Map<string, { open: number; wanted: number }>();
    for (const [key, group] of this.#plan) {
      const open = this.#open.group(key);
      for (const [port, binding] of group) {
        if (binding.reportedElsewhere === true) continue;
        for (const { name } of frontendsOf(binding)) {
          const entry = census.get(name) ?? { open: 0, wanted: 0 };
          census.set(name, entry);
          entry.wanted++;
          if (open?.has(port) === true) entry.open++;
        }
      }
    }
    return Object.fromEntries(census);
  }

  async #openAll(
    missing: ListenerBinding[],
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    let wanted = missing;
    for (;;) {
      const beyond = this.#takeBeyond(wanted);
      const failed = await this.#opening.open(wanted, onOpen);
      for (const failure of failed) failures.push(failure);
      // What could not be bound leaves its place to the next port; a real want of descriptors leaves none.
      if (beyond.length === 0 || failed.length === 0 || failed.some(isShort))
        return [...beyond.map(beyondLimit), ...failures];
      wanted = beyond;
    }
  }

  /** Takes away, and gives back, what the limit leaves no room for. */
  #takeBeyond(missing: ListenerBinding[]): ListenerBinding[] {
    // Low ports first, each over both protocols: what is beyond the limit is missing for both.
    missing.sort((a, b) => a.port - b.port);
    const room = Math.max(0, this.#most - this.#open.size - (this.#prepared?.listeners.size ?? 0));
    return missing.splice(room);
  }

  #close(listener: Listener): void {
    this.#open.delete(listener);
    listener.close();
  }
}

function beyondLimit(binding: ListenerBinding): ListenFailure {
  return failureOf(binding, 'EMFILE');
}

function isShort({ errorCode }: ListenFailure): boolean {
  return errorCode === 'EMFILE';
}

/** Those that a socket serves: a captured TCP socket serves all of its family. */
function frontendsOf({ captured, frontend, address }: ListenerBinding): readonly Frontend[] {
  if (captured?.protocol !== 'tcp') return [frontend];
  return captured.ends
    .all()
    .map((ports) => ports.frontend)
    .filter((served) => served.address.family === address.family);
}
