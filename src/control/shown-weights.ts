import type { Backend } from '../model/configuration.js';
import type { PoolView } from '../model/forwarding-state.js';
import type { BackendView } from '../model/operator-views.js';

export interface WeightSources {
  /** An operator's; undefined: nobody has set one. */
  operator(backend: Backend): number | undefined;
  /** From the header of the view's probe; undefined: none. */
  probeHeader(backend: Backend): number | undefined;
}

export type ShownWeight = Pick<BackendView, 'weight' | 'weightOrigin'>;

/** While a member is in slow start, weights of a view count this much; see BackendState.effectiveWeight. */
const RAMP_SCALE = 100;

/** The first step of slow start, in hundredths of the weight. */
const FIRST_STEP = 10;

/**
 * What a view's table was built with, member by member, in the units of the configuration, and who is behind it. Pure.
 */
export function shownWeights(view: PoolView, sources: WeightSources): readonly ShownWeight[] {
  const wanted = view.backends.map(({ backend }) => wantedWeight(backend, sources));
  const steps = view.backends.map(({ effectiveWeight }, index) => {
    const weight = wanted[index]?.weight ?? 0;
    return weight === 0 ? undefined : effectiveWeight / weight;
  });
  const isRamping =
    steps.some((step) => step !== undefined) &&
    steps.every((step) => step === undefined || step >= FIRST_STEP);
  return view.backends.map(({ effectiveWeight }, index) => {
    const weightOrigin = wanted[index]?.weightOrigin ?? 'configured';
    if (!isRamping) return { weight: effectiveWeight, weightOrigin };
    const isStarting = (steps[index] ?? RAMP_SCALE) < RAMP_SCALE;
    return {
      weight: effectiveWeight / RAMP_SCALE,
      weightOrigin: isStarting ? 'slow-start' : weightOrigin,
    };
  });
}

function wantedWeight(backend: Backend, sources: WeightSources): ShownWeight {
  const operator = sources.operator(backend);
  if (operator !== undefined) return { weight: operator, weightOrigin: 'operator' };
  const header = backend.weight === 0 ? undefined : sources.probeHeader(backend);
  if (header !== undefined) return { weight: header, weightOrigin: 'probe-header' };
  return { weight: backend.weight, weightOrigin: 'configured' };
}
