import { isDeepStrictEqual } from 'node:util';
import type { PlanReport, PlannedBackend } from '../api/views.js';
import { questionKey } from '../health/scheduler.js';
import type { Backend, BackendPool, Configuration, Rule } from '../model/configuration.js';
import { portSetSize, unionPorts, type PortRange } from '../model/ports.js';

/** Keys that are named otherwise once they are resolved; durations also lose their `Ms`. */
const WRITTEN_KEYS: Readonly<Record<string, string>> = {
  protocols: 'protocol',
  ports: 'listenPorts',
  portOffset: 'backendPort',
  upThreshold: 'threshold',
  downThreshold: 'threshold',
};

/** Keys in which two things differ, as the configuration has them. */
function differingKeys<T extends object>(
  before: T,
  after: T,
  comparedApart: readonly string[] = [],
): readonly string[] {
  const from = new Map<string, unknown>(Object.entries(before));
  const to = new Map<string, unknown>(Object.entries(after));
  const keys = [...new Map([...from, ...to]).keys()]
    .filter((key) => !comparedApart.includes(key) && !isDeepStrictEqual(from.get(key), to.get(key)))
    .map((key) => WRITTEN_KEYS[key] ?? key.replace(/Ms$/, ''));
  return [...new Set(keys)];
}

/**
 * Keys in which a rule differs, those of what it names among them: `distribution`, `frontend.allow`, `probe.interval`,
 * `backendPool.slowStart`, `seed`.
 */
export function ruleChanges(
  before: Configuration,
  ruleBefore: Rule,
  after: Configuration,
  ruleAfter: Rule,
): readonly string[] {
  const linked = [
    ['frontend', ruleBefore.frontend, ruleAfter.frontend],
    ['backendPool', ruleBefore.pool, ruleAfter.pool],
    ['probe', ruleBefore.probe, ruleAfter.probe],
  ] as const;
  const others = linked.filter(([, from, to]) => from?.name !== to?.name).map(([key]) => key);
  return [
    ...others,
    ...differingKeys(ruleBefore, ruleAfter, ['frontend', 'pool', 'probe']),
    ...linked
      .filter(([key]) => !others.includes(key))
      .flatMap(([key, from = {}, to = {}]) =>
        differingKeys<object>(from, to, ['backends']).map((inner) => `${key}.${inner}`),
      ),
    ...differingKeys(hashSettings(before), hashSettings(after)),
    ...kernelChanges(before, after, ({ onStop: _, manageSysctls: __, ...options }) => options),
  ];
}

/** What changes every rule's hash. */
function hashSettings({ seed, tableSize }: Configuration) {
  return { seed, tableSize };
}

/** Of the options that `select` leaves, those that differ; `dataPlane.kind` where only one has a kernel plane. */
function kernelChanges(
  { kernel: before }: Configuration,
  { kernel: after }: Configuration,
  select: (kernel: NonNullable<Configuration['kernel']>) => object,
): readonly string[] {
  if (before === undefined && after === undefined) return [];
  if (before === undefined || after === undefined) return ['dataPlane.kind'];
  return differingKeys(select(before), select(after)).map((key) => `dataPlane.kernel.${key}`);
}

/** Keys that differ and that are fixed when the process starts. */
export function restartKeys(before: Configuration, after: Configuration): readonly string[] {
  const kernel = kernelChanges(before, after, ({ mode, interface: device, manageSysctls }) => {
    return { mode, interface: device, manageSysctls };
  });
  // The kernel data plane has no workers: another kind says it all.
  const comparedApart = kernel.includes('dataPlane.kind') ? ['dataPlane.workers'] : [];
  return [...kernel, ...differingKeys(processSettings(before), processSettings(after), comparedApart)];
}

function processSettings(configuration: Configuration) {
  const { workers, instance, capture, admin, metrics, flowLog, logging, webhook } = configuration;
  return {
    'dataPlane.workers': workers,
    'dataPlane.instance': instance,
    // Excluded ports are only left out of the rules' ports, and those may change.
    'dataPlane.capture': capture && { ...capture, excludedPorts: [] },
    ...{ admin, metrics, flowLog, logging },
    'events.webhook': webhook,
  };
}

/** By identity: another address, or the same one in another pool, is another backend. */
export function backendChanges(before: Configuration, after: Configuration): PlanReport['backends'] {
  const old = membersById(before);
  const present = membersById(after);
  return {
    added: [...present.values()].filter(({ backend }) => !old.has(backend.id)).map(planned),
    removed: [...old.values()].filter(({ backend }) => !present.has(backend.id)).map(planned),
    changed: [...present.values()].flatMap((member) => {
      const was = old.get(member.backend.id);
      const changes = was === undefined ? [] : differingKeys(was.backend, member.backend);
      return changes.length === 0 ? [] : [{ ...planned(member), changes }];
    }),
  };
}

interface PoolMember {
  readonly pool: BackendPool;
  readonly backend: Backend;
}

function membersById({ backendPools }: Configuration): ReadonlyMap<string, PoolMember> {
  return new Map(
    backendPools.flatMap((pool) => pool.backends.map((backend) => [backend.id, { pool, backend }] as const)),
  );
}

function planned({ pool, backend: { id, name } }: PoolMember): PlannedBackend {
  return { pool: pool.name, backendId: id, name };
}

/** What is asked of whom: the questions of all probes that a rule sees backends through. */
export function probeQuestions({ rules }: Configuration): ReadonlySet<string> {
  return new Set(
    rules.flatMap(({ pool, probe }) =>
      probe === undefined ? [] : pool.backends.map(({ address }) => questionKey(address, probe)),
    ),
  );
}

/**
 * Backends that stay, but that a probe has no state of yet since it asks another question of them than any did before.
 * New backends are not among them: they had no state to lose.
 */
export function lostProbeState(before: Configuration, after: Configuration): PlanReport['probeStateLost'] {
  const known = probeQuestions(before);
  const old = membersById(before);
  const lost = new Map<string, PlanReport['probeStateLost'][number]>();
  for (const { pool, probe } of after.rules) {
    if (probe === undefined) continue;
    for (const { id, address } of pool.backends) {
      if (!old.has(id) || known.has(questionKey(address, probe))) continue;
      lost.set(`${id} ${probe.name}`, { backendId: id, probe: probe.name });
    }
  }
  return [...lost.values()];
}

/**
 * Counts listeners, by protocol, frontend address and port, that another configuration keeps, opens and closes. A
 * wildcard frontend counts as one address, over UDP too, where a data plane has a socket for each of the machine's own.
 */
export function listenerChanges(before: Configuration, after: Configuration): PlanReport['listeners'] {
  const old = listenedPorts(before);
  const present = listenedPorts(after);
  const changes = { kept: 0, opened: 0, closed: 0 };
  for (const key of new Set([...old.keys(), ...present.keys()])) {
    const from = old.get(key) ?? [];
    const to = present.get(key) ?? [];
    const [had, has, either] = [countPorts(from), countPorts(to), countPorts([...from, ...to])];
    changes.kept += had + has - either;
    changes.opened += either - had;
    changes.closed += either - has;
  }
  return changes;
}

/** By protocol and frontend address: the ports of all rules there, which may overlap. */
function listenedPorts({ rules }: Configuration): ReadonlyMap<string, readonly PortRange[]> {
  const listened = new Map<string, PortRange[]>();
  for (const { frontend, protocols, ports } of rules) {
    for (const protocol of protocols) {
      const key = `${protocol} ${frontend.address.text}`;
      const ranges = listened.get(key) ?? [];
      listened.set(key, ranges);
      ranges.push(...ports);
    }
  }
  return listened;
}

function countPorts(ranges: readonly PortRange[]): number {
  return portSetSize(unionPorts(ranges, []));
}
