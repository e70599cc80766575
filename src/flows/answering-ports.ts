import type { Rule } from '../model/configuration.js';

/** A bit for each port. */
const BITMAP_BYTES = 65_536 / 8;

/** A port is remembered for one to two of these after its last answer to a new flow: ports for one transfer come and go. */
const REMEMBERED_MS = 3_600_000;

type Bitmaps = Map<string, Uint8Array>;

/**
 * The ports at which each backend has answered: where many ports are forwarded most are closed on an appliance, so a
 * refusal says something about the appliance only at a port that was open. At most 16 KiB a backend.
 */
export class AnsweringPorts {
  #recent: Bitmaps = new Map();
  #older: Bitmaps = new Map();
  #sinceMs: number;

  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  add(backendId: string, port: number, nowMs: number): void {
    this.#forget(nowMs);
    let bitmap = this.#recent.get(backendId);
    if (bitmap === undefined) this.#recent.set(backendId, (bitmap = new Uint8Array(BITMAP_BYTES)));
    bitmap[port >> 3]! |= 1 << (port & 7);
  }

  has(backendId: string, port: number, nowMs: number): boolean {
    this.#forget(nowMs);
    return [this.#recent, this.#older].some(
      (bitmaps) => ((bitmaps.get(backendId)?.[port >> 3] ?? 0) & (1 << (port & 7))) !== 0,
    );
  }

  /** Forgets backends that are not among these. */
  keepOnly(backendIds: ReadonlySet<string>): void {
    for (const bitmaps of [this.#recent, this.#older]) {
      for (const id of bitmaps.keys()) if (!backendIds.has(id)) bitmaps.delete(id);
    }
  }

  #forget(nowMs: number): void {
    const ageMs = nowMs - this.#sinceMs;
    if (ageMs < REMEMBERED_MS) return;
    this.#older = ageMs < 2 * REMEMBERED_MS ? this.#recent : new Map<string, Uint8Array>();
    this.#recent = new Map();
    this.#sinceMs = nowMs;
  }
}

/** Whether a rule forwards a single port: a backend that refuses it does not do what it is there for. */
export function forwardsOnePort({
  haPorts,
  ports: [range, ...more],
}: Pick<Rule, 'haPorts' | 'ports'>): boolean {
  return !haPorts && more.length === 0 && range?.first === range?.last;
}
