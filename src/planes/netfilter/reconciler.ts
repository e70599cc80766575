import { errorMessage } from '../../model/errors.js';
import type { KernelChanged } from '../../model/events.js';
import type { KernelReport } from '../../model/kernel-report.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import { TableWriter, findDamage, flushInstance, type Damage, type Installed } from './nft.js';
import { tableName, type KernelSetup } from './setup.js';
import {
  addRouting,
  deleteRouting,
  instanceTag,
  ipCommandLine,
  listOwnRouting,
  tableOf,
  without,
} from './routing.js';
import { usableTool, type Tools } from './tools.js';

export interface ReconcilerDeps {
  readonly clock: Clock;
  readonly tools: Tools;
  /** Called after the report has changed. Evidence: what was wrong, or why it failed. */
  onChange(change: KernelChanged['change'], evidence?: string): void;
}

export interface ReconcilerOptions {
  /** Whose table and routing it is. */
  readonly instance: string;
  /** How often the structure of the table and the routing are looked at. @default 2000 */
  readonly pollMs?: number;
  /** How often the elements are, which takes nft most of a second for 65,535. @default 300000 */
  readonly elementsEveryMs?: number;
  /** Whether a table that a process before this one has left is gone on with where it has the structure. @default false */
  readonly adopts?: boolean;
}

/** The part of a KernelReport that this class knows. */
export type ReconcilerReport = Pick<
  KernelReport,
  'table' | 'state' | 'sinceMs' | 'repairs' | 'failures' | 'lastFailure' | 'tool'
>;

const POLL_MS = 2000;
const ELEMENTS_EVERY_MS = 5 * 60_000;
const RETRY = { firstMs: 1000, maxMs: 30_000 };

/** That often in a row it must be impossible to look before that counts as failing: a busy machine is slow. */
const FAILED_LOOKS = 3;

/**
 * Keeps one setup in the kernel: puts it there whole or not at all, looks after it, and puts it right when others have
 * changed it. It writes nothing but its own table and routing. One operation at a time: calls wait for each other.
 */
export class Reconciler {
  readonly #deps: ReconcilerDeps;
  readonly #table: string;
  readonly #instance: string;
  readonly #tag: number;
  readonly #pollMs: number;
  readonly #elementsEveryMs: number;
  readonly #writer: TableWriter;
  readonly #retry = new Backoff(RETRY);
  #queue: Promise<unknown> = Promise.resolve();
  #cancelPoll: (() => void) | undefined;
  #failedLooks = 0;
  #elementsAtMs = 0;
  #report: Omit<ReconcilerReport, 'table'>;

  constructor(deps: ReconcilerDeps, options: ReconcilerOptions) {
    this.#deps = deps;
    this.#instance = options.instance;
    this.#table = tableOf(options.instance);
    this.#tag = instanceTag(options.instance);
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#elementsEveryMs = options.elementsEveryMs ?? ELEMENTS_EVERY_MS;
    const onFailure = (text: string): void => this.#noteFailure(text);
    this.#writer = new TableWriter({ tools: deps.tools, onFailure }, { adopts: options.adopts ?? false });
    this.#report = { state: 'absent', sinceMs: deps.clock.wallMs(), repairs: 0, failures: 0, tool: '' };
  }

  report(): ReconcilerReport {
    const { table = this.#table, family = 'inet' } = this.#writer.installed?.setup ?? {};
    return { table: tableName({ table, family }), ...this.#report };
  }

  /** Whether the kernel would take the setup, as far as that can be known. Rejects with BalancerError if not. */
  async check(setup: KernelSetup): Promise<void> {
    await this.#oneAtATime(async () => {
      await this.#knowTool();
      await this.#writer.check(setup);
    });
  }

  /**
   * Puts the setup in place of what is there, and looks after it from now on. What a crashed process has left of the
   * same instance goes. Rejects with BalancerError: then what was there before still is, and is looked after.
   */
  async install(setup: KernelSetup): Promise<void> {
    await this.#oneAtATime(async () => {
      this.#stopPolling();
      try {
        const changed = await this.#putInPlace(setup);
        this.#retry.reset();
        if (this.#enter('in-place') || changed) this.#deps.onChange('installed');
      } catch (error) {
        this.#noteFailure(errorMessage(error));
        throw error;
      } finally {
        this.#schedule(this.#pollMs);
      }
    });
  }

  /**
   * As install, by the shortest way where only elements differ: what is there is taken to be what was put there. Whoever
   * has altered it in the last `pollMs` is noticed after that.
   */
  async update(setup: KernelSetup): Promise<void> {
    const isDone = await this.#oneAtATime(
      async () => this.#report.state === 'in-place' && (await this.#writer.change(setup)),
    );
    if (!isDone) await this.install(setup);
  }

  /** Takes everything away, also what was not put there by this object. Rejects with BalancerError if it cannot. */
  async remove(): Promise<void> {
    await this.#oneAtATime(async () => {
      this.#stopPolling();
      this.#writer.forget();
      await flushInstance(this.#deps.tools, this.#instance);
      if (this.#enter('absent')) this.#deps.onChange('removed');
    });
  }

  /** Looks after nothing any more, and leaves everything where it is: to a successor. Install takes it up again. */
  async letGo(): Promise<void> {
    await this.#oneAtATime(() => {
      this.#stopPolling();
      this.#writer.forget();
      this.#enter('absent');
    });
  }

  /** Whether anything was written. */
  async #putInPlace(setup: KernelSetup): Promise<boolean> {
    const { tools } = this.#deps;
    await this.#knowTool();
    const present = await listOwnRouting(tools, this.#tag);
    const added = without(setup.routing, present);
    let written: boolean;
    try {
      await addRouting(tools, added);
      written = await this.#writeTable(setup);
    } catch (error) {
      await deleteRouting(tools, without(added, this.#writer.installed?.setup.routing ?? []));
      throw error;
    }
    const stale = without(present, setup.routing);
    const failure = await deleteRouting(tools, stale);
    // It does no harm where it is.
    if (failure !== undefined) this.#noteFailure(failure.message);
    return written || added.length > 0 || stale.length > 0;
  }

  async #writeTable(setup: KernelSetup): Promise<boolean> {
    const written = await this.#writer.write(setup);
    if (written === 'table') this.#elementsAtMs = this.#deps.clock.monotonicMs();
    return written !== 'nothing';
  }

  async #poll(): Promise<void> {
    const installed = this.#writer.installed;
    if (installed === undefined) return;
    let damage: Damage;
    try {
      damage = await this.#look(installed);
      this.#failedLooks = 0;
    } catch (error) {
      this.#failedLooks += 1;
      this.#fail(errorMessage(error), this.#failedLooks >= FAILED_LOOKS);
      return;
    }
    try {
      await this.#repair(installed.setup, damage);
    } catch (error) {
      this.#fail(errorMessage(error), true);
    }
  }

  async #look(installed: Installed): Promise<Damage> {
    const { tools, clock } = this.#deps;
    const isDue = clock.monotonicMs() - this.#elementsAtMs >= this.#elementsEveryMs;
    const damage = await findDamage(tools, installed, isDue ? 'elements-too' : 'structure');
    if (isDue && damage.table === undefined) this.#elementsAtMs = clock.monotonicMs();
    return damage;
  }

  async #repair(setup: KernelSetup, { table, routing }: Damage): Promise<void> {
    await addRouting(this.#deps.tools, routing);
    if (table !== undefined) {
      this.#writer.distrust();
      await this.#writeTable(setup);
    }
    this.#retry.reset();
    const first = routing[0];
    const missing = first === undefined ? undefined : `"${ipCommandLine('add', first)}" was undone`;
    const recovered = this.#enter('in-place') ? 'It can be looked at again' : undefined;
    const evidence = table ?? missing ?? recovered;
    if (table !== undefined || missing !== undefined) {
      this.#report = { ...this.#report, repairs: this.#report.repairs + 1 };
    }
    if (evidence !== undefined) this.#deps.onChange('repaired', evidence);
    this.#schedule(this.#pollMs);
  }

  #fail(text: string, isFailing: boolean): void {
    const isNews = text !== this.#report.lastFailure?.text;
    this.#noteFailure(text);
    const entered = isFailing && this.#enter('failing');
    if (entered || (isFailing && isNews)) this.#deps.onChange('failed', text);
    this.#schedule(this.#retry.nextMs());
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

  #schedule(delayMs: number): void {
    this.#stopPolling();
    if (this.#writer.installed === undefined) return;
    const poll = (): void => {
      this.#oneAtATime(async () => this.#poll()).catch((error: unknown) => {
        this.#fail(`Internal error: ${errorMessage(error)}`, true);
      });
    };
    this.#cancelPoll = this.#deps.clock.setTimer(delayMs, poll, { unref: true });
  }

  #stopPolling(): void {
    this.#cancelPoll?.();
    this.#cancelPoll = undefined;
  }

  async #oneAtATime<T>(operation: () => T | Promise<T>): Promise<T> {
    const done = this.#queue.then(operation);
    this.#queue = done.catch(() => undefined);
    return done;
  }
}
