import { errorMessage } from '../../model/errors.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import { sameStructure, type KernelSetup } from '../netfilter/setup.js';
import {
  DrainSpread,
  evictionsWithout,
  movedFlows,
  resetFlows,
  spreadingOf,
  staleFlows,
  type Evictions,
  type FlowEvictor,
  type Spreading,
} from './enforce.js';
import { slotMap } from './nat/placement.js';
import { ACTED, actionSet } from './nat/policies.js';
import { RemovedBackends, kernelInput, type KernelInput } from './program.js';
import type { FlowSource } from './stop.js';

/** Flows that are reset are forgotten after that: either end has sent something by then, or is not there. */
const RESET_GRACE_MS = 3000;
/** How often it is looked whether backends that were removed still have flows. */
const REMOVED_EVERY_MS = 30_000;

/** Keeps one setup in the kernel: nft/reconciler.ts, or a test's. */
export interface SetupWriter {
  /** Rejects with a BalancerError where the kernel would refuse it. */
  check(setup: KernelSetup): Promise<void>;
  /** Whole or not at all; keeps it there from then on. */
  install(setup: KernelSetup): Promise<void>;
  /** As install, by the shortest way where only elements differ. */
  update(setup: KernelSetup): Promise<void>;
}

export interface KernelChangesDeps {
  readonly clock: Clock;
  readonly keeper: SetupWriter;
  readonly flows: FlowSource;
  readonly evictor: FlowEvictor;
  readonly setupOf: (input: KernelInput) => KernelSetup;
  /** Something is due that no apply has asked for: to put the present state again. */
  onDue(): void;
}

interface Current {
  readonly state: ForwardingState;
  readonly input: KernelInput;
  readonly setup: KernelSetup;
}

/**
 * Brings one forwarding state after another into the kernel: first who is out and what becomes of his flows, then flows
 * that are to be placed anew are forgotten, then the slots of the tables follow. Calls must not overlap.
 */
export class KernelChanges {
  readonly #deps: KernelChangesDeps;
  readonly #removed = new RemovedBackends();
  readonly #spread: DrainSpread;
  /** Drained backends whose time to end flows is over. */
  readonly #over = new Set<string>();
  #current: Current | undefined;
  #cancelGrace: () => void = () => undefined;
  #cancelRemoved: () => void = () => undefined;

  constructor(deps: KernelChangesDeps) {
    this.#deps = deps;
    const onOver = (id: string): void => {
      this.#over.add(id);
      deps.onDue();
    };
    this.#spread = new DrainSpread({ clock: deps.clock, evictor: deps.evictor, onOver });
  }

  get state(): ForwardingState | undefined {
    return this.#current?.state;
  }

  get input(): KernelInput | undefined {
    return this.#current?.input;
  }

  /** Rejects with BalancerError: then the state before is in force, or some of this one's urgent part is. */
  async put(state: ForwardingState): Promise<void> {
    const before = this.#current;
    if (before === undefined) await this.#adoptRemoved(state);
    const isKnown = before?.state.configuration.digest === state.configuration.digest;
    const kept = isKnown || before === undefined ? undefined : before.state.configuration;
    if (kept !== undefined) this.#removed.replace(kept, state.configuration);
    try {
      await this.#write(state, before, isKnown);
    } catch (error) {
      if (kept !== undefined) {
        this.#removed.replace(state.configuration, kept);
        if (before !== undefined) this.#deps.flows.update(before.state, before.input);
      }
      throw error;
    }
    this.#watchRemoved();
  }

  /** For good. What is in the kernel stays. */
  stop(): void {
    this.#spread.stop();
    this.#cancelGrace();
    this.#cancelRemoved();
  }

  async #write(state: ForwardingState, before: Current | undefined, isKnown: boolean): Promise<void> {
    const { keeper, flows, evictor, setupOf } = this.#deps;
    const inNat = state.configuration.kernel?.mode === 'nat';
    const isTracked = inNat || isPinnedNextHop(state);
    // What conntrack does not know cannot be ended one after another.
    const spreading = isTracked ? spreadingOf(state, this.#over) : new Map<string, number>();
    const input = kernelInput(state, this.#removed.list, new Set(spreading.keys()));
    const setup = inNat ? { ...setupOf(input), staleFlows: staleFlows(input) } : setupOf(input);
    flows.update(state, input);
    this.#announceEnds(state, input);
    // In other modes the ruleset moves flows as they are.
    const moved: Evictions = inNat ? movedFlows(input) : new Map();
    const newlyMoved = evictionsWithout(moved, before === undefined ? new Map() : movedFlows(before.input));
    if (before !== undefined && isKnown && sameStructure(before.setup, setup)) {
      await keeper.update(urgentStage(before.setup, setup, input));
      if (inNat) await evictor.evict(newlyMoved, moved, input);
      if (isTracked) {
        const reset = resetFlows(input);
        await evictor.evict(evictionsWithout(resetFlows(before.input), reset), reset, before.input);
      }
      await keeper.update(setup);
    } else {
      if (before !== undefined) await keeper.check(setup);
      await keeper.install(setup);
      if (inNat) {
        await evictor.evict(newlyMoved, moved, input);
        await evictor.evictRuleless(input, state.configuration);
      }
    }
    this.#current = { state, input, setup };
    if (inNat) {
      await evictor.evictOthers(newlyMoved);
      this.#evictReset(before);
    }
    if (isTracked) this.#spread.replace(this.#spreadingFlows(spreading, input));
  }

  /** What is deleted from now on ends because of what made its backend lose it. */
  #announceEnds(state: ForwardingState, input: KernelInput): void {
    const ended = kernelInput(state, this.#removed.list);
    for (const { rule, protocol, mark } of [...movedFlows(ended).values(), ...resetFlows(ended).values()]) {
      const id = input.backends.find((backend) => backend.mark === mark)?.id;
      const reason = state.views
        .flatMap(({ backends }) => backends)
        .find(({ backend, invalidBecause }) => backend.id === id && invalidBecause !== undefined);
      this.#deps.flows.ending({ mark, protocol, rule: rule.rule.name }, reason?.invalidBecause ?? 'removed');
    }
  }

  /** Later: until then both ends are told by a reset when they send. */
  #evictReset(before: Current | undefined): void {
    const input = this.#current?.input;
    if (input === undefined) return;
    const were = before === undefined ? new Map() : resetFlows(before.input);
    if (evictionsWithout(resetFlows(input), were).length === 0) return;
    this.#cancelGrace();
    this.#cancelGrace = this.#deps.clock.setTimer(
      RESET_GRACE_MS,
      () => {
        const now = this.#current?.input ?? input;
        const all = resetFlows(now);
        void this.#deps.evictor.evict([...all.values()], all, now);
      },
      { unref: true },
    );
  }

  #spreadingFlows(
    spreading: ReadonlyMap<string, number>,
    input: KernelInput,
  ): ReadonlyMap<string, Spreading> {
    const ended = kernelInputOfEnded(this.#current?.state, this.#removed, spreading);
    const all = ended === undefined ? [] : [...movedFlows(ended).values(), ...resetFlows(ended).values()];
    return new Map(
      Array.from(spreading, ([id, spreadMs]) => {
        const mark = input.backends.find((backend) => backend.id === id)?.mark;
        return [id, { spreadMs, evictions: all.filter((eviction) => eviction.mark === mark) }];
      }),
    );
  }

  /** A process before this one may have had other backends, and their flows go on. */
  async #adoptRemoved({ configuration }: ForwardingState): Promise<void> {
    const marks = await this.#deps.evictor.marksInUse(configuration.instance);
    if (marks !== undefined) this.#removed.adopt(configuration, marks);
  }

  #watchRemoved(): void {
    this.#cancelRemoved();
    if (this.#removed.list.length === 0) return;
    this.#cancelRemoved = this.#deps.clock.setTimer(
      REMOVED_EVERY_MS,
      () => {
        this.#forgetRemoved().catch((error: unknown) => errorMessage(error));
      },
      { unref: true },
    );
  }

  async #forgetRemoved(): Promise<void> {
    let forgotten = false;
    for (const { id } of this.#removed.list) {
      const mark = this.#current?.input.backends.find((backend) => backend.id === id)?.mark;
      if (mark !== undefined && (await this.#deps.flows.countOf(mark)) !== 0) continue;
      forgotten = this.#removed.forget(id) || forgotten;
    }
    if (forgotten) this.#deps.onDue();
    else this.#watchRemoved();
  }
}

function isPinnedNextHop({ configuration: { kernel } }: ForwardingState): boolean {
  return kernel?.mode === 'next-hop' && kernel.flowState === 'pinned';
}

/** As it will be when the time of drained backends is over. */
function kernelInputOfEnded(
  state: ForwardingState | undefined,
  removed: RemovedBackends,
  spreading: ReadonlyMap<string, number>,
): KernelInput | undefined {
  return state === undefined || spreading.size === 0 ? undefined : kernelInput(state, removed.list);
}

/**
 * What of a change is to be in force first: who is out, and what becomes of his flows. A few elements, where the slots of
 * a table are thousands. TCP flows that are being reset go on being reset until the last stage. Of setups of the same
 * structure; `input` is that of `to`.
 */
export function urgentStage(from: KernelSetup, to: KernelSetup, input: KernelInput): KernelSetup {
  const late = new Set(input.tables.map(slotMap));
  const kept = new Set([ACTED, ...input.rules.map((rule) => actionSet('tcp', 'reset', rule))]);
  const sets = new Map(
    Array.from(to.sets, ([name, elements]) => {
      const before = from.sets.get(name);
      if (before === undefined) return [name, elements];
      if (late.has(name)) return [name, before];
      return [name, kept.has(name) ? new Map([...before, ...elements]) : elements];
    }),
  );
  return { ...to, sets };
}
