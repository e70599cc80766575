import type { OtherFlowCount } from '../../data-plane.js';

interface Tally {
  readonly backendId: string;
  readonly protocol: number;
  opened: number;
  active: number;
}

/** Counts flows of ICMP, GRE, ESP ... by backend and protocol. They are not listed: a flow has ports, as it is shown. */
export class OtherFlows {
  readonly #live = new Map<number, { readonly tally: Tally; round: number }>();
  readonly #tallies = new Map<string, Tally>();

  begin(key: number, protocol: number, backendId: string, round: number): void {
    if (this.see(key, round)) return;
    const name = `${protocol} ${backendId}`;
    let tally = this.#tallies.get(name);
    if (tally === undefined) this.#tallies.set(name, (tally = { backendId, protocol, opened: 0, active: 0 }));
    tally.opened++;
    tally.active++;
    this.#live.set(key, { tally, round });
  }

  /** False: there is no such flow. */
  see(key: number, round: number): boolean {
    const flow = this.#live.get(key);
    if (flow !== undefined) flow.round = round;
    return flow !== undefined;
  }

  end(key: number): void {
    const flow = this.#live.get(key);
    if (flow === undefined) return;
    flow.tally.active--;
    this.#live.delete(key);
  }

  /** Those that were not seen in this round are gone. */
  endRound(round: number): void {
    for (const [key, flow] of this.#live) if (flow.round < round) this.end(key);
  }

  counts(): readonly OtherFlowCount[] {
    return Array.from(this.#tallies.values(), (tally) => ({ ...tally }));
  }
}
