import type { Backend, BackendPool } from '../model/configuration.js';
import { effectiveEligibility } from '../pool/admin-state.js';
import type { CompilerInputs } from './forwarding-compiler.js';
import type { RecordedEpoch, RecordedMember } from './recorded-state.js';

/** One backend, by the probe that saw it so; no probe: an empty name. */
type Seen = ReadonlyMap<string, RecordedMember>;

/** While a member is in slow start, weights are recorded this many times as large (BackendState). */
const RAMP_SCALE = 100;

/** Members in slow start get so many times a multiple of their weight (control/slow-start.ts). */
const RAMP_STEP = 10;

/**
 * What swayed the state of an epoch, so that the state can be compiled again, and with something else supposed. Gives the
 * same tables. Backends that the epoch does not have are taken for up.
 */
export function inputsOfEpoch({ views }: RecordedEpoch, pools: readonly BackendPool[]): CompilerInputs {
  const byBackend = new Map<string, Map<string, RecordedMember>>();
  for (const { key, backends } of views) {
    const probe = key.slice(key.indexOf('|') + 1);
    for (const member of backends) {
      const seen = byBackend.get(member.id) ?? new Map<string, RecordedMember>();
      byBackend.set(member.id, seen.set(probe, member));
    }
  }
  const ramping = new Set(
    pools
      .filter((pool) => isRamping(pool, byBackend))
      .flatMap(({ backends }) => backends.map(({ id }) => id)),
  );
  const anyOf = ({ id }: Backend): RecordedMember | undefined => byBackend.get(id)?.values().next().value;
  const weightIn = (backend: Backend, { weight }: RecordedMember): number => {
    if (!ramping.has(backend.id)) return weight;
    return weight < backend.weight * RAMP_SCALE ? backend.weight : weight / RAMP_SCALE;
  };
  return {
    health(backend, probe) {
      const member = byBackend.get(backend.id)?.get(probe);
      if (member === undefined) return { state: 'up' };
      return { state: member.health, weight: weightIn(backend, member) };
    },
    adminState: (backend) => anyOf(backend)?.adminState ?? backend.adminState,
    draining: (backend) => anyOf(backend)?.draining === true,
    endSpreadMs: (backend) => (hasDrainEnded(anyOf(backend)) ? 0 : undefined),
    // Where probes weigh it differently, each view has its own; else it may be the operator's wish, which outranks them.
    weight(backend) {
      const weights = new Set(
        [...(byBackend.get(backend.id)?.values() ?? [])].map((one) => weightIn(backend, one)),
      );
      return weights.size === 1 ? weights.values().next().value : undefined;
    },
    rampPercent(backend) {
      const member = anyOf(backend);
      if (member === undefined || !ramping.has(backend.id)) return 100;
      return member.weight < backend.weight * RAMP_SCALE ? member.weight / backend.weight : 100;
    },
  };
}

/** Told from the weights alone; where it is not seen, they are taken as they stand, which gives the same table. */
function isRamping({ slowStartMs, backends }: BackendPool, byBackend: ReadonlyMap<string, Seen>): boolean {
  if (slowStartMs === undefined) return false;
  let starting = 0;
  let full = 0;
  for (const { id, weight: configured } of backends) {
    for (const { weight } of byBackend.get(id)?.values() ?? []) {
      if (weight === 0) continue;
      const isStarting = weight < configured * RAMP_SCALE;
      if (weight % (isStarting ? configured * RAMP_STEP : RAMP_SCALE) !== 0) return false;
      if (isStarting) starting++;
      else full++;
    }
  }
  return starting > 0 && full > 0;
}

/** Its flows may not stay, though neither the probe nor the operator's switch says so. How fast they end is not recorded. */
function hasDrainEnded(member: RecordedMember | undefined): boolean {
  if (member?.draining !== true || member.valid) return false;
  return effectiveEligibility(member.health, member.adminState, true).valid;
}
