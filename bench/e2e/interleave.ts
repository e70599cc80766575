import type { Bench, Pass } from './bench.js';
import type { CaseName } from './options.js';
import type { Numbers } from './results.js';
import { messageOf, startTargets, type SpecWithoutFrontend, type Target } from './target.js';

/** A case over peers that stay up for all rounds. */
export interface Plan {
  readonly case: CaseName;
  readonly spec: SpecWithoutFrontend;
  readonly variants: readonly string[];
  /** Throws when the content that passes through is not what was sent. Also warms up. */
  readonly verify: (target: Target) => Promise<void>;
  readonly measure: (target: Target, variant: string) => Promise<Numbers>;
}

/**
 * Starts the peers of a pass, verifies each, then measures in rounds: in each round every variant of every peer, one
 * after another, and each round begins with another peer. A peer that fails its verification is not measured.
 */
export async function interleave(bench: Bench, pass: Pass, plan: Plan): Promise<void> {
  const fail = (label: string, error: string): void => {
    for (const variant of plan.variants) {
      bench.record({ case: plan.case, variant, peer: label, round: 0, error });
    }
  };
  const started = await startTargets(bench, pass, {
    spec: plan.spec,
    failed: (peer, error) => fail(peer.label, error),
  });
  const targets: Target[] = [];
  for (const target of started) {
    try {
      await plan.verify(target);
      targets.push(target);
    } catch (error) {
      fail(target.peer.label, messageOf(error));
    }
  }
  for (let round = 0; round < bench.options.rounds; round++) {
    for (const variant of plan.variants) {
      for (let index = 0; index < targets.length; index++) {
        const target = targets[(index + round) % targets.length]!;
        const base = { case: plan.case, variant, peer: target.peer.label, round };
        try {
          bench.record({ ...base, numbers: await plan.measure(target, variant) });
        } catch (error) {
          bench.record({ ...base, error: messageOf(error) });
        }
      }
    }
  }
  await Promise.allSettled(started.flatMap(({ process }) => (process === undefined ? [] : [process.stop()])));
}
