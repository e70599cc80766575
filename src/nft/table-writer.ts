import { errorMessage } from '../model/errors.js';
import { findSealed, foundElements, sealTable, withoutSeal, type Installed } from './adoption.js';
import { deltaText, replaceTableText, type KernelSetup } from './kernel-setup.js';
import { without } from './own-routing.js';
import { checkTransaction, forgetFlows, listStructure, replaceTable, runTransaction } from './own-table.js';
import type { Tools } from './tools.js';

export interface TableWriterDeps {
  readonly tools: Tools;
  /** Of what failed and was done in another way. */
  onFailure(text: string): void;
}

export interface TableWriterOptions {
  /** Whether a table that a process before this one has left is gone on with where it has the structure. */
  readonly adopts: boolean;
}

/** Writes one setup's table after another, by the difference where that is possible. Calls must not overlap. */
export class TableWriter {
  readonly #deps: TableWriterDeps;
  readonly #adopts: boolean;
  #installed: Installed | undefined;

  constructor(deps: TableWriterDeps, { adopts }: TableWriterOptions) {
    this.#deps = deps;
    this.#adopts = adopts;
  }

  /** What was put in place; undefined: nothing. */
  get installed(): Installed | undefined {
    return this.#installed;
  }

  /** Begins anew. */
  forget(): void {
    this.#installed = undefined;
  }

  /** What was put in place is not what is there: the next write is of the whole table. */
  distrust(): void {
    if (this.#installed !== undefined) this.#installed = { ...this.#installed, structure: undefined };
  }

  /** Rejects with BalancerError where the kernel would refuse it. */
  async check(setup: KernelSetup): Promise<void> {
    const delta = await this.#deltaTo(setup);
    if (delta !== '') await checkTransaction(this.#deps.tools, delta ?? replaceTableText(setup));
  }

  /** Whether only elements differ from what is believed to be there, and they could be changed. Never rejects. */
  async change(setup: KernelSetup): Promise<boolean> {
    const installed = this.#installed;
    if (installed?.structure === undefined || differsInRouting(installed.setup, setup)) return false;
    const delta = deltaText(installed.setup, setup);
    if (delta === undefined || (delta !== '' && !(await this.#tryDelta(delta)))) return false;
    this.#installed = { setup, structure: installed.structure };
    return true;
  }

  /** Whole or not at all. Rejects with BalancerError. */
  async write(setup: KernelSetup): Promise<'nothing' | 'elements' | 'table'> {
    const { tools } = this.#deps;
    if (this.#adopts) this.#installed ??= await findSealed(tools, setup);
    const delta = await this.#deltaTo(setup);
    if (delta !== undefined) {
      if (delta === '' || (await this.#tryDelta(delta)) || (await this.#changeFound(setup))) {
        this.#installed = { setup, structure: this.#installed?.structure };
        if (delta !== '') await this.#forgetFlows(setup);
        return delta === '' ? 'nothing' : 'elements';
      }
    }
    await replaceTable(tools, setup);
    const listed = this.#adopts ? sealTable(tools, setup) : listStructure(tools, setup.table);
    this.#installed = { setup, structure: await listed.catch(() => undefined) };
    await this.#forgetFlows(setup);
    return 'table';
  }

  /** What leads from the table that is really there to the setup; undefined: it takes the whole table. */
  async #deltaTo(setup: KernelSetup): Promise<string | undefined> {
    const installed = this.#installed;
    const delta = installed === undefined ? undefined : deltaText(installed.setup, setup);
    if (installed?.structure === undefined || delta === undefined) return undefined;
    const found = await listStructure(this.#deps.tools, setup.table);
    return found !== undefined && withoutSeal(found) === installed.structure ? delta : undefined;
  }

  /** False: the elements are not what they should be, or the kernel has no room just now. */
  async #tryDelta(delta: string): Promise<boolean> {
    try {
      await runTransaction(this.#deps.tools, delta);
      return true;
    } catch (error) {
      this.#deps.onFailure(errorMessage(error));
      return false;
    }
  }

  /** Whether the elements that are really there could be changed: what packets have put into other sets stays. */
  async #changeFound(setup: KernelSetup): Promise<boolean> {
    if (!this.#adopts) return false;
    try {
      const sets = await foundElements(this.#deps.tools, setup);
      const delta = deltaText({ ...setup, sets }, setup) ?? '';
      return delta === '' || (await this.#tryDelta(delta));
    } catch (error) {
      this.#deps.onFailure(errorMessage(error));
      return false;
    }
  }

  async #forgetFlows({ staleFlows = [] }: KernelSetup): Promise<void> {
    const failure = await forgetFlows(this.#deps.tools, staleFlows);
    if (failure !== undefined) this.#deps.onFailure(failure.message);
  }
}

function differsInRouting(a: KernelSetup, b: KernelSetup): boolean {
  return without(a.routing, b.routing).length + without(b.routing, a.routing).length > 0;
}
