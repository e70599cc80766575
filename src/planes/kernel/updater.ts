import { EndPacer } from '../../flows/end-pacer.js';
import { FlowJudge } from '../../flows/judge.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import type { Reconciler, Stage } from '../netfilter/reconciler.js';
import { sameStructure, type KernelSetup } from '../netfilter/setup.js';
import {
  clientFilter,
  evictionsWithout,
  movedFlows,
  rankOf,
  resetFlows,
  staleFlows,
  type Eviction,
  type Evictions,
  type FlowFinder,
} from './enforce.js';
import type { ConntrackFlows } from './nat/kernel-flows.js';
import { slotMap } from './nat/placement.js';
import { ACTED, actionSet } from './nat/policies.js';
import { RemovedBackends, compileProgram, type KernelProgram } from './program.js';

/** Flows that are reset are forgotten after that: either end has sent something by then, or is gone. */
const RESET_GRACE_MS = 3000;
/** How often it is looked whether backends that were removed still have flows. */
const REMOVED_EVERY_MS = 30_000;

export interface KernelUpdaterDeps {
  readonly clock: Clock;
  readonly reconciler: Pick<Reconciler, 'want' | 'forget' | 'present'>;
  readonly flows: Pick<ConntrackFlows, 'update' | 'ending' | 'countOf'>;
  readonly finder: FlowFinder;
  readonly setupOf: (program: KernelProgram) => KernelSetup;
  /** Something is due that no state has asked for: call `update` with the present state. */
  readonly onDue: () => void;
}

interface Current {
  readonly state: ForwardingState;
  readonly program: KernelProgram;
}

/** Flows of a client on a backend, which a drain ends together: conntrack forgets them by one command. */
interface DrainedClient {
  readonly eviction: Eviction;
  readonly source: string;
}

/**
 * Brings one forwarding state after another into the kernel: first the backends that are out and the fate of their
 * flows, then flows to be placed again are forgotten, then the slots of the tables follow. Calls must not overlap.
 */
export class KernelUpdater {
  readonly #deps: KernelUpdaterDeps;
  readonly #removed = new RemovedBackends();
  readonly #pacer: EndPacer<DrainedClient>;
  /** Drained backends whose flows are being ended, and those whose time for that is over. */
  #spreading: ReadonlyMap<string, { readonly spreadMs: number; readonly untilMs: number }> = new Map();
  readonly #over = new Set<string>();
  #current: Current | undefined;
  /** The last program whose flows were forgotten as it says. */
  #enforced: KernelProgram | undefined;
  #cancelGrace: () => void = () => undefined;
  #cancelRemoved: () => void = () => undefined;

  constructor(deps: KernelUpdaterDeps) {
    this.#deps = deps;
    this.#pacer = new EndPacer(deps.clock, {
      endBatch: (batch, id) => this.#endBatch(batch, id),
      rank: ({ source }) => rankOf(source),
      onOver: (id) => {
        this.#over.add(id);
        deps.onDue();
      },
    });
  }

  get state(): ForwardingState | undefined {
    return this.#current?.state;
  }

  get program(): KernelProgram | undefined {
    return this.#current?.program;
  }

  /**
   * Rejects with BalancerError where the kernel refuses. The state of another configuration is then as if it had never
   * come; another health is tried again until it, or what came after it, is there.
   */
  async update(state: ForwardingState): Promise<void> {
    const before = this.#current;
    if (before === undefined) await this.#adoptRemoved(state);
    const isKnown = before?.state.configuration.digest === state.configuration.digest;
    if (isKnown || before === undefined) {
      await this.#bring(state, isKnown);
    } else {
      this.#removed.replace(before.state.configuration, state.configuration);
      try {
        await this.#bring(state, false);
      } catch (error) {
        this.#removed.replace(state.configuration, before.state.configuration);
        this.#deps.flows.update(before.state, before.program);
        throw error;
      }
    }
    this.#watchRemoved();
  }

  /** For good. What is in the kernel stays. */
  stop(): void {
    this.#pacer.stop();
    this.#cancelGrace();
    this.#cancelRemoved();
  }

  async #bring(state: ForwardingState, isKnown: boolean): Promise<void> {
    const { reconciler, flows, finder, setupOf } = this.#deps;
    const { kernel } = state.configuration;
    const isNat = kernel?.mode === 'nat';
    const isTracked = isNat || (kernel?.mode === 'next-hop' && kernel.flowState === 'pinned');
    // What conntrack does not know cannot be ended one after another.
    const spreading = isTracked ? this.#spreadingOf(state) : new Map<string, number>();
    const removed = this.#removed.list;
    const rulePorts = isKnown ? this.program?.rulePorts : undefined;
    const program = compileProgram(state, { removed, spreading: new Set(spreading.keys()), rulePorts });
    const setup = isNat ? { ...setupOf(program), staleFlows: staleFlows(program) } : setupOf(program);
    flows.update(state, program);
    const ended =
      spreading.size === 0 ? program : compileProgram(state, { removed, rulePorts: program.rulePorts });
    this.#announceEnds(state, ended);

    const enforced = this.#enforced;
    // In other modes the ruleset moves flows as they are.
    const moved: Evictions = isNat ? movedFlows(program) : new Map();
    const newlyMoved = evictionsWithout(moved, enforced === undefined ? new Map() : movedFlows(enforced));
    const reset: Evictions = isTracked ? resetFlows(program) : new Map();
    const wasReset: Evictions = isTracked && enforced !== undefined ? resetFlows(enforced) : new Map();
    const forgetMoved = () => finder.filtersOf(newlyMoved, moved, program);
    const forgetOthers = isNat && { forget: () => finder.otherFilters(newlyMoved) };
    const { present } = reconciler;
    let stages: readonly Stage[];
    if (isKnown && present !== undefined && sameStructure(present, setup)) {
      const forget = async () => [
        ...(await forgetMoved()),
        ...(await finder.filtersOf(evictionsWithout(wasReset, reset), reset, enforced ?? program)),
      ];
      stages = [
        { setup: urgentStage(present, setup, program), forget },
        { setup, ...forgetOthers },
      ];
    } else {
      const forget = async () => [
        ...(await forgetMoved()),
        ...(await finder.rulelessFilters(program)),
        ...(await finder.otherFilters(newlyMoved)),
      ];
      stages = [{ setup, ...(isNat && { forget }) }];
    }
    const adopt = (): void => {
      this.#current = { state, program };
      if (isNat && evictionsWithout(reset, wasReset).length > 0) this.#forgetResetLater();
      if (isTracked) this.#spread(spreading, ended);
    };
    try {
      await reconciler.want(stages, isKnown ? { start: 'trust', onRefusal: 'persist' } : {});
      this.#enforced = program;
    } catch (error) {
      // The reconciler brings another health in later.
      if (isKnown) adopt();
      throw error;
    }
    adopt();
  }

  /** Drained backends whose flows are to end over a time, which it is, by id. */
  #spreadingOf(state: ForwardingState): ReadonlyMap<string, number> {
    const drained = new FlowJudge(state).drained();
    for (const id of this.#over) if (!drained.has(id)) this.#over.delete(id);
    return new Map([...drained].filter(([id, spreadMs]) => spreadMs > 0 && !this.#over.has(id)));
  }

  /** `ended`: the program as it will be when the time of drained backends is over. */
  #spread(spreading: ReadonlyMap<string, number>, ended: KernelProgram): void {
    const { clock, finder } = this.#deps;
    const before = this.#spreading;
    const evictions = [...movedFlows(ended).values(), ...resetFlows(ended).values()];
    const begun = Array.from(spreading, ([id, spreadMs]) => {
      const same = before.get(id);
      if (same?.spreadMs === spreadMs) return [id, same] as const;
      const mark = ended.backends.find((backend) => backend.id === id)?.mark;
      for (const eviction of evictions.filter((one) => one.mark === mark)) {
        void finder.clientsOf(eviction).then(
          (clients) =>
            this.#pacer.add(
              id,
              Array.from(clients, (source) => ({ eviction, source })),
            ),
          // They end when the time is over.
          () => undefined,
        );
      }
      return [id, { spreadMs, untilMs: clock.monotonicMs() + spreadMs }] as const;
    });
    this.#spreading = new Map(begun);
    this.#pacer.replace(
      new Map(Array.from(spreading, ([id, spreadMs]) => [id, { spreadMs, items: [] }] as const)),
    );
  }

  /** Each client takes conntrack some milliseconds. The ruleset ends what is left when the time is over. */
  async #endBatch(batch: readonly DrainedClient[], id: string): Promise<void> {
    const { clock, reconciler } = this.#deps;
    for (const { eviction, source } of batch) {
      if (clock.monotonicMs() >= (this.#spreading.get(id)?.untilMs ?? 0)) return;
      await reconciler.forget(() => Promise.resolve([clientFilter(eviction, source)]));
    }
  }

  /** What is deleted from now on ends because of what made its backend lose it. */
  #announceEnds(state: ForwardingState, ended: KernelProgram): void {
    for (const { rule, protocol, mark } of [...movedFlows(ended).values(), ...resetFlows(ended).values()]) {
      const id = ended.backends.find((backend) => backend.mark === mark)?.id;
      const reason = state.views
        .flatMap(({ backends }) => backends)
        .find(({ backend, invalidBecause }) => backend.id === id && invalidBecause !== undefined);
      this.#deps.flows.ending({ mark, protocol, rule: rule.rule.name }, reason?.invalidBecause ?? 'removed');
    }
  }

  /** Until then each end gets a reset when it sends. */
  #forgetResetLater(): void {
    const { clock, reconciler, finder } = this.#deps;
    const forget = (): void => {
      const program = this.#current?.program;
      if (program === undefined) return;
      const all = resetFlows(program);
      void reconciler.forget(() => finder.filtersOf([...all.values()], all, program));
    };
    this.#cancelGrace();
    this.#cancelGrace = clock.setTimer(RESET_GRACE_MS, forget, { unref: true });
  }

  /** An earlier process may have had other backends, whose flows stay. */
  async #adoptRemoved({ configuration }: ForwardingState): Promise<void> {
    // Where conntrack cannot be listed, their flows are not known as theirs.
    const marks = await this.#deps.finder.marksInUse(configuration.instance).catch(() => undefined);
    if (marks !== undefined) this.#removed.adopt(configuration, marks);
  }

  #watchRemoved(): void {
    this.#cancelRemoved();
    if (this.#removed.list.length === 0) return;
    const look = (): void => void this.#forgetRemoved();
    this.#cancelRemoved = this.#deps.clock.setTimer(REMOVED_EVERY_MS, look, { unref: true });
  }

  async #forgetRemoved(): Promise<void> {
    let isForgotten = false;
    for (const { id } of this.#removed.list) {
      const mark = this.program?.backends.find((backend) => backend.id === id)?.mark;
      if (mark !== undefined && (await this.#deps.flows.countOf(mark)) !== 0) continue;
      isForgotten = this.#removed.forget(id) || isForgotten;
    }
    if (isForgotten) this.#deps.onDue();
    else this.#watchRemoved();
  }
}

/**
 * The part of a change that must take effect first: which backends are out, and the fate of their flows. A few elements,
 * where the slots of a table are thousands. TCP flows that are being reset are reset until the last stage. Of setups of
 * the same structure; `program` is that of `to`.
 */
function urgentStage(from: KernelSetup, to: KernelSetup, program: KernelProgram): KernelSetup {
  const late = new Set(program.tables.map(slotMap));
  const kept = new Set([ACTED, ...program.rules.map((rule) => actionSet('tcp', 'reset', rule))]);
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
