import type { TablePressure } from '../../../model/events.js';
import type { Clock } from '../../../runtime/clock.js';
import type { Files } from '../../../runtime/files.js';
import type { TableUse } from '../../contract.js';
import { conntrackUse } from '../nat/mirrored-flow.js';

const LOOK_MS = 1000;

/** Early enough to do something about it; as for source ports. */
const HIGH = 0.75;
/** Lower, so that it does not come and go. */
const NORMAL = 0.7;

/** Looks every second how full conntrack is, and says when that becomes, or ceases to be, a danger. */
export class TableWatch {
  readonly #deps: { readonly clock: Clock; readonly files: Files };
  readonly #emit: (event: TablePressure) => void;
  #level: TablePressure['level'] = 'normal';
  #use: TableUse | undefined;
  #cancel: (() => void) | undefined;

  constructor(deps: { readonly clock: Clock; readonly files: Files }, emit: (event: TablePressure) => void) {
    this.#deps = deps;
    this.#emit = emit;
  }

  /** When last looked; undefined: there is no conntrack. */
  get use(): TableUse | undefined {
    return this.#use;
  }

  /** Resolves when it has looked for the first time. Does not keep the process alive. */
  async start(): Promise<void> {
    this.#cancel = () => undefined;
    await this.#look();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  async #look(): Promise<void> {
    const use = await conntrackUse(this.#deps.files);
    if (this.#cancel === undefined) return;
    this.#use = use;
    if (use !== undefined) this.#judge(use);
    this.#cancel = this.#deps.clock.setTimer(LOOK_MS, () => void this.#look(), { unref: true });
  }

  #judge({ used, limit }: TableUse): void {
    const share = limit === 0 ? 0 : used / limit;
    const calm = this.#level === 'normal' ? HIGH : NORMAL;
    const level = share >= 1 ? 'exhausted' : share >= calm ? 'high' : 'normal';
    if (level === this.#level) return;
    this.#level = level;
    this.#emit({ type: 'table-pressure', atMs: this.#deps.clock.wallMs(), level, used, limit });
  }
}
