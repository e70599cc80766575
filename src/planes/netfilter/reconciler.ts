import { BalancerError, errorMessage } from '../../model/errors.js';
import type { KernelChanged, KernelReport } from '../../model/events.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import { SerialQueue } from '../../runtime/queue.js';
import { forgetFlows, type EntryFilter } from './conntrack.js';
import {
  checkTransaction,
  findDamage,
  findSealed,
  flushInstance,
  foundElements,
  listStructure,
  replaceTable,
  runTransaction,
  sealTable,
  withoutSeal,
  type Installed,
} from './nft.js';
import {
  addRouting,
  deleteRouting,
  instanceTag,
  ipCommandLine,
  listOwnRouting,
  tableOf,
  without,
} from './routing.js';
import { deltaText, replaceTableText, tableName, type KernelSetup } from './setup.js';
import { usableTool, type Tools } from './tools.js';

/** Called after the report has changed. Evidence: what was wrong, or why it failed. */
export type OnKernelChange = (change: KernelChanged['change'], evidence?: string) => void;

export interface ReconcilerDeps {
  readonly clock: Clock;
  readonly tools: Tools;
  readonly onChange: OnKernelChange;
}

export interface ReconcilerOptions {
  /** Whose table and routing it is. */
  readonly instance: string;
  /** How often the structure of the table and the routing are looked at. @default 2000 */
  readonly pollMs?: number;
  /** How often the elements are, which takes nft most of a second for 65,535. @default 300000 */
  readonly elementsEveryMs?: number;
  /** Whether the table that an earlier process has left is kept where it has the wanted structure. @default false */
  readonly adopts?: boolean;
}

/** A step on the way to what is wanted. */
export interface Stage {
  readonly setup: KernelSetup;
  /**
   * Flows that are to be forgotten once the setup is in the kernel, asked for then. May reject. What cannot be found or
   * forgotten in three attempts is left to end by itself.
   */
  readonly forget?: () => Promise<readonly EntryFilter[]>;
}

export interface WantOptions {
  /**
   * `look`: what is in the kernel is looked at first. `trust`: it is taken to be what was seen last, so that a change of
   * elements is one transaction; what others have altered since is found at the next look.
   *
   * @default 'look'
   */
  readonly start?: 'look' | 'trust';
  /**
   * When the kernel refuses: `restore` wants again what was wanted before; `persist` tries again until the stages, or
   * what is wanted next, are in the kernel.
   *
   * @default 'restore'
   */
  readonly onRefusal?: 'restore' | 'persist';
}

/** The part of a KernelReport that this class knows. */
export type ReconcilerReport = Omit<KernelReport, 'mode' | 'why'>;

const POLL_MS = 2000;
const ELEMENTS_EVERY_MS = 5 * 60_000;

/** A tool that fails now may not a moment later: the kernel was short of memory, another program was in its way. */
const RETRY = { firstMs: 20, maxMs: 10_000 };
/** After so many attempts `want` rejects, whether it is tried again or not. */
const ATTEMPTS = 3;
/** So many looks in a row must fail before that counts as failing: a busy machine is slow. */
const FAILED_LOOKS = 3;

interface Wish {
  /** Those that are not in the kernel yet. */
  readonly stages: Stage[];
  readonly start: WantOptions['start'];
}

/**
 * Keeps one setup in the kernel: observes, writes the difference, and repairs what others have changed. It alone tries
 * again what fails. It writes nothing but its own table and routing. One operation at a time: calls wait for each other.
 */
export class Reconciler {
  readonly #deps: ReconcilerDeps;
  readonly #options: Required<ReconcilerOptions>;
  readonly #tag: number;
  readonly #backoff = new Backoff(RETRY);
  readonly #queue = new SerialQueue();
  /** What was written last, as far as it is known to be there. */
  #installed: Installed | undefined;
  #wish: Wish = { stages: [], start: 'look' };
  #cancelTimer: (() => void) | undefined;
  #failedLooks = 0;
  #elementsAtMs = 0;
  #report: Omit<ReconcilerReport, 'table'>;

  constructor(deps: ReconcilerDeps, options: ReconcilerOptions) {
    this.#deps = deps;
    this.#options = { pollMs: POLL_MS, elementsEveryMs: ELEMENTS_EVERY_MS, adopts: false, ...options };
    this.#tag = instanceTag(options.instance);
    this.#report = { state: 'absent', sinceMs: deps.clock.wallMs(), repairs: 0, failures: 0, tool: '' };
  }

  report(): ReconcilerReport {
    const { table = tableOf(this.#options.instance), family = 'inet' } = this.present ?? {};
    return { table: tableName({ table, family }), ...this.#report };
  }

  /** What was written last; undefined: nothing. */
  get present(): KernelSetup | undefined {
    return this.#installed?.setup;
  }

  /** Whether the kernel would take the setup, as far as that can be known. Rejects with BalancerError if not. */
  async check(setup: KernelSetup): Promise<void> {
    await this.#queue.run(async () => {
      await this.#knowTool();
      const delta = await this.#observedDelta(setup);
      if (delta !== '') await checkTransaction(this.#deps.tools, delta ?? replaceTableText(setup));
    });
  }

  /**
   * Brings the stages into the kernel, one after another, each whole or not at all, and looks after the last one from
   * then on. What a crashed process has left of the same instance goes. Rejects with BalancerError after some attempts.
   */
  async want(
    stages: readonly Stage[],
    { start = 'look', onRefusal = 'restore' }: WantOptions = {},
  ): Promise<void> {
    await this.#queue.run(async () => {
      this.#stopTimer();
      const before = this.#wish;
      this.#wish = { stages: [...stages], start };
      this.#backoff.reset();
      try {
        await this.#grantPatiently();
      } catch (error) {
        if (onRefusal === 'restore') this.#wish = before;
        else if (this.#enter('failing')) this.#deps.onChange('failed', errorMessage(error));
        throw error;
      } finally {
        this.#schedule();
      }
    });
  }

  /** As Stage.forget, of what is in the kernel. Never rejects. */
  async forget(find: () => Promise<readonly EntryFilter[]>): Promise<void> {
    const forget = async (): Promise<void> => {
      const failure = await forgetFlows(this.#deps.tools, await find());
      if (failure !== undefined) throw failure;
    };
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) if (await this.#succeeds(forget)) return;
  }

  /** Takes everything away, also what was not put there by this object. Rejects with BalancerError if it cannot. */
  async remove(): Promise<void> {
    await this.#queue.run(async () => {
      this.#giveUp();
      await flushInstance(this.#deps.tools, this.#options.instance);
      if (this.#enter('absent')) this.#deps.onChange('removed');
    });
  }

  /** Looks after nothing any more, and leaves everything to a successor. `want` takes it up again. */
  async release(): Promise<void> {
    await this.#queue.run(() => {
      this.#giveUp();
      this.#enter('absent');
      return Promise.resolve();
    });
  }

  #giveUp(): void {
    this.#stopTimer();
    this.#installed = undefined;
    this.#wish = { stages: [], start: 'look' };
  }

  async #grantPatiently(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#grant();
        return;
      } catch (error) {
        this.#noteFailure(errorMessage(error));
        if (attempt === ATTEMPTS || isFinal(error)) throw error;
        await new Promise<void>((resolve) => this.#deps.clock.setTimer(this.#backoff.nextMs(), resolve));
      }
    }
  }

  async #grant(): Promise<void> {
    const { stages, start } = this.#wish;
    for (let stage = stages[0]; stage !== undefined; stage = stages[0]) {
      await this.#put(stage.setup, start);
      stages.shift();
      if (stage.forget !== undefined) await this.forget(stage.forget);
    }
  }

  async #put(setup: KernelSetup, start: WantOptions['start']): Promise<void> {
    if (start === 'trust' && this.#report.state === 'in-place' && (await this.#change(setup))) return;
    const wasFailing = this.#report.state === 'failing';
    const isWritten = await this.#write(setup);
    const entered = this.#enter('in-place');
    if (wasFailing) this.#deps.onChange('repaired', 'What could not be written before is written now');
    else if (entered || isWritten) this.#deps.onChange('installed');
  }

  /** Whether only elements differ from what is believed to be there, and they could be changed. */
  async #change(setup: KernelSetup): Promise<boolean> {
    const installed = this.#installed;
    if (installed?.structure === undefined || !sameRouting(installed.setup, setup)) return false;
    const delta = deltaText(installed.setup, setup);
    if (delta === undefined || !(await this.#try(delta))) return false;
    this.#installed = { ...installed, setup };
    return true;
  }

  /** Whole or not at all. Whether anything was written. */
  async #write(setup: KernelSetup): Promise<boolean> {
    const { tools } = this.#deps;
    await this.#knowTool();
    const present = await listOwnRouting(tools, this.#tag);
    const added = without(setup.routing, present);
    let isWritten: boolean;
    try {
      await addRouting(tools, added);
      isWritten = await this.#writeTable(setup);
    } catch (error) {
      await deleteRouting(tools, without(added, this.present?.routing ?? []));
      throw error;
    }
    const stale = without(present, setup.routing);
    const failure = await deleteRouting(tools, stale);
    // It does no harm where it is.
    if (failure !== undefined) this.#noteFailure(failure.message);
    return isWritten || added.length > 0 || stale.length > 0;
  }

  /** By the difference where that is possible. */
  async #writeTable(setup: KernelSetup): Promise<boolean> {
    const { tools, clock } = this.#deps;
    if (this.#options.adopts) this.#installed ??= await findSealed(tools, setup);
    const delta = await this.#observedDelta(setup);
    const isChanged = delta !== undefined && ((await this.#try(delta)) || (await this.#changeFound(setup)));
    if (isChanged) {
      this.#installed = { setup, structure: this.#installed?.structure };
    } else {
      await replaceTable(tools, setup);
      const listed = this.#options.adopts ? sealTable(tools, setup) : listStructure(tools, setup.table);
      this.#installed = { setup, structure: await listed.catch(() => undefined) };
      this.#elementsAtMs = clock.monotonicMs();
    }
    if (isChanged && delta === '') return false;
    const failure = await forgetFlows(tools, setup.staleFlows ?? []);
    if (failure !== undefined) this.#noteFailure(failure.message);
    return true;
  }

  /** What leads from the table that is really there to the setup; undefined: it takes the whole table. */
  async #observedDelta(setup: KernelSetup): Promise<string | undefined> {
    const installed = this.#installed;
    const delta = installed === undefined ? undefined : deltaText(installed.setup, setup);
    if (installed?.structure === undefined || delta === undefined) return undefined;
    const found = await listStructure(this.#deps.tools, setup.table);
    return found !== undefined && withoutSeal(found) === installed.structure ? delta : undefined;
  }

  /** Whether the elements that are really there could be changed: what packets have put into other sets stays. */
  async #changeFound(setup: KernelSetup): Promise<boolean> {
    if (!this.#options.adopts) return false;
    return this.#succeeds(async () => {
      const sets = await foundElements(this.#deps.tools, setup);
      await this.#run(deltaText({ ...setup, sets }, setup) ?? '');
    });
  }

  /** False: the elements are not what they should be, or the kernel has no room just now. */
  #try(delta: string): Promise<boolean> {
    return this.#succeeds(() => this.#run(delta));
  }

  async #run(delta: string): Promise<void> {
    if (delta !== '') await runTransaction(this.#deps.tools, delta);
  }

  /** A failure is noted. */
  async #succeeds(act: () => Promise<void>): Promise<boolean> {
    try {
      await act();
      return true;
    } catch (error) {
      this.#noteFailure(errorMessage(error));
      return false;
    }
  }

  async #tick(): Promise<void> {
    try {
      if (this.#wish.stages.length > 0) await this.#grant();
      else await this.#lookAfter();
      this.#backoff.reset();
      this.#schedule();
    } catch (error) {
      this.#fell(error, true);
      this.#schedule(this.#backoff.nextMs());
    }
  }

  /** Rejects where what is wrong cannot be repaired. */
  async #lookAfter(): Promise<void> {
    const { tools, clock, onChange } = this.#deps;
    const installed = this.#installed;
    if (installed === undefined) return;
    const isDue = clock.monotonicMs() - this.#elementsAtMs >= this.#options.elementsEveryMs;
    let damage;
    try {
      damage = await findDamage(tools, installed, isDue ? 'elements-too' : 'structure');
    } catch (error) {
      this.#failedLooks += 1;
      this.#fell(error, this.#failedLooks >= FAILED_LOOKS);
      return;
    }
    this.#failedLooks = 0;
    const { table, routing } = damage;
    if (isDue && table === undefined) this.#elementsAtMs = clock.monotonicMs();
    await addRouting(tools, routing);
    if (table !== undefined) {
      // What was written is not what is there: the whole table is.
      this.#installed = { ...installed, structure: undefined };
      await this.#writeTable(installed.setup);
    }
    const [first] = routing;
    const undone = first && `"${ipCommandLine('add', first)}" was undone`;
    const recovered = this.#enter('in-place') ? 'It can be looked at again' : undefined;
    const evidence = table ?? undone ?? recovered;
    if (table !== undefined || undone !== undefined) {
      this.#report = { ...this.#report, repairs: this.#report.repairs + 1 };
    }
    if (evidence !== undefined) onChange('repaired', evidence);
  }

  #fell(error: unknown, isFailing: boolean): void {
    const text = errorMessage(error);
    const isNews = text !== this.#report.lastFailure?.text;
    this.#noteFailure(text);
    if (isFailing && (this.#enter('failing') || isNews)) this.#deps.onChange('failed', text);
  }

  #noteFailure(text: string): void {
    const lastFailure = { atMs: this.#deps.clock.wallMs(), text };
    this.#report = { ...this.#report, failures: this.#report.failures + 1, lastFailure };
  }

  /** Whether that is another state. */
  #enter(state: KernelReport['state']): boolean {
    if (this.#report.state === state) return false;
    this.#report = { ...this.#report, state, sinceMs: this.#deps.clock.wallMs() };
    return true;
  }

  async #knowTool(): Promise<void> {
    if (this.#report.tool !== '') return;
    this.#report = { ...this.#report, tool: await usableTool(this.#deps.tools) };
  }

  #schedule(delayMs = this.#wish.stages.length > 0 ? this.#backoff.nextMs() : this.#options.pollMs): void {
    this.#stopTimer();
    if (this.#installed === undefined && this.#wish.stages.length === 0) return;
    const tick = (): void => void this.#queue.run(() => this.#tick());
    this.#cancelTimer = this.#deps.clock.setTimer(delayMs, tick, { unref: true });
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}

/** Whether trying again at once is of no use. */
function isFinal(error: unknown): boolean {
  return !(error instanceof BalancerError) || error.code !== 'LB_KERNEL_FAILED';
}

function sameRouting(a: KernelSetup, b: KernelSetup): boolean {
  return without(a.routing, b.routing).length + without(b.routing, a.routing).length === 0;
}
