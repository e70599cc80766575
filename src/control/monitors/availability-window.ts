import type { PlaneCounters } from '../../dataplane/data-plane.js';

/** Azure's detection window of data path availability. */
const WINDOW_MS = 60_000;

interface Reading {
  readonly atMs: number;
  readonly ratio: number;
}

export interface FrontendAvailability {
  readonly name: string;
  /** Share of wanted sockets that were open, 0 to 1. */
  readonly average: number;
  /** The window is as long as it should be. */
  readonly isWhole: boolean;
}

/** Listeners open of those wanted, by frontend, on average over the last minute. */
export class AvailabilityWindow {
  readonly #readings = new Map<string, { readonly firstAtMs: number; list: readonly Reading[] }>();

  /**
   * `listeners` undefined, or without a frontend that had some: nobody serves it now. Frontends that never had any to
   * open are left out, and those that no rule names are forgotten.
   */
  observe(
    atMs: number,
    listeners: PlaneCounters['listeners'] | undefined,
    frontends: ReadonlySet<string>,
  ): readonly FrontendAvailability[] {
    const uses = new Map(Object.entries(listeners ?? {}));
    for (const name of this.#readings.keys()) if (!frontends.has(name)) this.#readings.delete(name);
    const found: FrontendAvailability[] = [];
    for (const name of frontends) {
      const { open, wanted } = uses.get(name) ?? { open: 0, wanted: 0 };
      const before = this.#readings.get(name);
      if (wanted === 0 && (uses.has(name) || before === undefined)) continue;
      const entry = before ?? { firstAtMs: atMs, list: [] };
      this.#readings.set(name, entry);
      entry.list = [
        ...entry.list.filter((reading) => reading.atMs > atMs - WINDOW_MS),
        { atMs, ratio: wanted === 0 ? 0 : open / wanted },
      ];
      const sum = entry.list.reduce((total, { ratio }) => total + ratio, 0);
      found.push({
        name,
        // Sixty times 0.9 is a little less than 54 in floating point, and 90 % are not less than 90 %.
        average: Number((sum / entry.list.length).toFixed(9)),
        isWhole: atMs - entry.firstAtMs >= WINDOW_MS,
      });
    }
    return found;
  }
}
