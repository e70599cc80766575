import { isDeepStrictEqual } from 'node:util';
import { questionKey } from '../health/scheduler.js';
import type {
  Backend,
  BackendPool,
  Configuration,
  Frontend,
  KernelOptions,
  Probe,
  Rule,
} from '../model/configuration.js';
import type { PlanReport, PlannedBackend } from '../api/views.js';
import type { PortSet } from '../model/ports.js';

/** Fields of a resolved thing, and the key of the configuration that each comes from. */
type Keys<T> = Readonly<Partial<Record<keyof T, string>>>;

/** What it names is compared by itself. */
const RULE_KEYS: Keys<Rule> = {
  protocols: 'protocol',
  haPorts: 'haPorts',
  ports: 'listenPorts',
  portOffset: 'backendPort',
  floatingIp: 'floatingIp',
  distribution: 'distribution',
  symmetric: 'symmetric',
  idleTimeoutMs: 'idleTimeout',
  tcpReset: 'tcpReset',
  flowPolicy: 'flowPolicy',
  allDown: 'allDown',
  tcp: 'tcp',
  udp: 'udp',
};

const FRONTEND_KEYS: Keys<Frontend> = {
  address: 'address',
  proxyProtocol: 'proxyProtocol',
  allow: 'allow',
  deny: 'deny',
};

/** Its backends are compared one by one. */
const POOL_KEYS: Keys<BackendPool> = {
  minimumHealthy: 'minimumHealthy',
  sourceAddresses: 'sourceAddresses',
  sourcePorts: 'sourcePorts',
  proxyProtocol: 'proxyProtocol',
  connectTimeoutMs: 'connectTimeout',
  connectAttempts: 'connectAttempts',
  slowStartMs: 'slowStart',
};

const BACKEND_KEYS: Keys<Backend> = {
  name: 'name',
  weight: 'weight',
  priority: 'priority',
  adminState: 'adminState',
  maxConnections: 'maxConnections',
  floatingAddresses: 'floatingAddresses',
};

/** Of the whole configuration, what changes every rule's hash. */
const HASH_KEYS: Keys<Configuration> = { seed: 'seed', tableSize: 'tableSize' };

/** Of the kernel data plane, what changes how every rule's packets go. */
const KERNEL_KEYS: Keys<KernelOptions> = {
  mode: 'dataPlane.kernel.mode',
  returnPath: 'dataPlane.kernel.returnPath',
  interface: 'dataPlane.kernel.interface',
  flowState: 'dataPlane.kernel.flowState',
  spokes: 'dataPlane.kernel.spokes',
};

/** Of it, what is fixed when the process starts: a new process takes over what the one before left in the kernel. */
const KERNEL_PROCESS_KEYS: Keys<KernelOptions> = {
  mode: 'dataPlane.kernel.mode',
  interface: 'dataPlane.kernel.interface',
  manageSysctls: 'dataPlane.kernel.manageSysctls',
};

/** Fixed when the process starts. */
const PROCESS_KEYS: Keys<Configuration> = {
  workers: 'dataPlane.workers',
  instance: 'dataPlane.instance',
  capture: 'dataPlane.capture',
  admin: 'admin',
  metrics: 'metrics',
  flowLog: 'flowLog',
  logging: 'logging',
  webhook: 'events.webhook',
};

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
  const pairs = [
    ['frontend', ruleBefore.frontend, ruleAfter.frontend],
    ['backendPool', ruleBefore.pool, ruleAfter.pool],
    ['probe', ruleBefore.probe, ruleAfter.probe],
  ] as const;
  const others = pairs.filter(([, from, to]) => from?.name !== to?.name).map(([key]) => key);
  const inside = <T extends object>(key: (typeof pairs)[number][0], keys: Keys<T>, from: T, to: T) =>
    others.includes(key) ? [] : differingKeys(keys, from, to).map((inner) => `${key}.${inner}`);
  return [
    ...(ruleBefore.name === ruleAfter.name ? [] : ['name']),
    ...others,
    ...differingKeys(RULE_KEYS, ruleBefore, ruleAfter),
    ...inside('frontend', FRONTEND_KEYS, ruleBefore.frontend, ruleAfter.frontend),
    ...inside('backendPool', POOL_KEYS, ruleBefore.pool, ruleAfter.pool),
    ...(others.includes('probe')
      ? []
      : probeChanges(ruleBefore.probe, ruleAfter.probe).map((key) => `probe.${key}`)),
    ...differingKeys(HASH_KEYS, before, after),
    ...kernelChanges(KERNEL_KEYS, before, after),
  ];
}

/** By identity: another address, or the same one in another pool, is another backend. */
export function backendChanges(before: Configuration, after: Configuration): PlanReport['backends'] {
  const old = backendsById(before);
  const present = backendsById(after);
  const added: PlannedBackend[] = [];
  const changed: (PlannedBackend & { readonly changes: readonly string[] })[] = [];
  for (const [id, { pool, backend }] of present) {
    const was = old.get(id);
    const changes = was === undefined ? [] : differingKeys(BACKEND_KEYS, was.backend, backend);
    if (was === undefined) added.push(planned(pool, backend));
    else if (changes.length > 0) changed.push({ ...planned(pool, backend), changes });
  }
  const gone = [...old].filter(([id]) => !present.has(id));
  return { added, removed: gone.map(([, { pool, backend }]) => planned(pool, backend)), changed };
}

/**
 * Backends that stay, but that a probe knows nothing of yet since it asks another question of them than any did before.
 * Backends that are new are not among them: nothing is lost of those.
 */
export function lostProbeState(before: Configuration, after: Configuration): PlanReport['probeStateLost'] {
  const known = new Set(
    probedBackends(before).map(({ backend, probe }) => questionKey(backend.address, probe)),
  );
  const old = backendsById(before);
  const lost = new Map<string, { readonly backendId: string; readonly probe: string }>();
  for (const { backend, probe } of probedBackends(after)) {
    if (!old.has(backend.id) || known.has(questionKey(backend.address, probe))) continue;
    lost.set(`${backend.id} ${probe.name}`, { backendId: backend.id, probe: probe.name });
  }
  return [...lost.values()];
}

/** Keys that differ and that only a new process takes over. */
export function restartKeys(before: Configuration, after: Configuration): readonly string[] {
  return [
    ...kernelChanges(KERNEL_PROCESS_KEYS, before, after),
    ...differingKeys(PROCESS_KEYS, before, withExcludedPortsOf(before, withWorkersOf(before, after))),
  ];
}

function kernelChanges(
  keys: Keys<KernelOptions>,
  { kernel: before }: Configuration,
  { kernel: after }: Configuration,
): readonly string[] {
  if (before === undefined && after === undefined) return [];
  if (before === undefined || after === undefined) return ['dataPlane.kind'];
  return differingKeys(keys, before, after);
}

/** The kernel data plane has no workers, so another kind is change enough. */
function withWorkersOf(before: Configuration, after: Configuration): Configuration {
  const isSameKind = (before.kernel === undefined) === (after.kernel === undefined);
  return isSameKind ? after : { ...after, workers: before.workers };
}

/** Excluded ports are only left out of the rules' ports, and those may change. */
function withExcludedPortsOf(before: Configuration, after: Configuration): Configuration {
  if (before.capture === undefined || after.capture === undefined) return after;
  return { ...after, capture: { ...after.capture, excludedPorts: before.capture.excludedPorts } };
}

function differingKeys<T extends object>(keys: Keys<T>, before: T, after: T): string[] {
  return (Object.entries(keys) as [keyof T, string][])
    .filter(([field]) => !isDeepStrictEqual(before[field], after[field]))
    .map(([, key]) => key);
}

/** `intervalMs` is `interval`. */
function probeChanges(before: Probe | undefined, after: Probe | undefined): readonly string[] {
  if (before === undefined || after === undefined) return [];
  const from: Readonly<Record<string, unknown>> = { ...before };
  const to: Readonly<Record<string, unknown>> = { ...after };
  const fields = new Set([...Object.keys(from), ...Object.keys(to)]);
  fields.delete('name');
  const keys = [...fields]
    .filter((field) => !isDeepStrictEqual(from[field], to[field]))
    .map((field) => (field === 'upThreshold' || field === 'downThreshold' ? 'threshold' : field));
  return [...new Set(keys.map((field) => field.replace(/Ms$/, '')))];
}

function backendsById({ backendPools }: Configuration) {
  return new Map(
    backendPools.flatMap((pool) => pool.backends.map((backend) => [backend.id, { pool, backend }] as const)),
  );
}

function planned(pool: BackendPool, { id, name }: Backend): PlannedBackend {
  return { pool: pool.name, backendId: id, name };
}

/** Backends, once for each rule that sees them through a probe. */
function probedBackends(
  configuration: Configuration,
): readonly { readonly backend: Backend; readonly probe: Probe }[] {
  const seen = new Map<string, { readonly backend: Backend; readonly probe: Probe }>();
  for (const { pool, probe } of configuration.rules) {
    if (probe === undefined) continue;
    for (const backend of pool.backends) {
      seen.set(`${backend.id} ${probe.name}`, { backend, probe });
    }
  }
  return [...seen.values()];
}

interface PortsOfGroup {
  readonly before: PortSet[];
  readonly after: PortSet[];
}

const PORTS = 65_536;
const BEFORE = 1;
const AFTER = 2;

/**
 * Counts listeners, by protocol, frontend address and port, that another configuration keeps, opens and closes. A
 * wildcard frontend counts as one address, over UDP too, where a data plane has a socket for each of the machine's own.
 */
export function listenerChanges(before: Configuration, after: Configuration): PlanReport['listeners'] {
  const groups = new Map<string, PortsOfGroup>();
  collect(groups, before, 'before');
  collect(groups, after, 'after');
  const counts = new Uint32Array(4);
  const marks = new Uint8Array(PORTS);
  for (const { before: old, after: present } of groups.values()) {
    marks.fill(0);
    mark(marks, old, BEFORE);
    mark(marks, present, AFTER);
    for (const sides of marks) counts[sides] = (counts[sides] ?? 0) + 1;
  }
  const [, closed = 0, opened = 0, kept = 0] = counts;
  return { kept, opened, closed };
}

function collect(
  groups: Map<string, PortsOfGroup>,
  { rules }: Configuration,
  side: keyof PortsOfGroup,
): void {
  for (const { frontend, protocols, ports } of rules) {
    for (const protocol of protocols) {
      const key = `${protocol} ${frontend.address.text}`;
      const group = groups.get(key) ?? { before: [], after: [] };
      groups.set(key, group);
      group[side].push(ports);
    }
  }
}

function mark(marks: Uint8Array, sets: readonly PortSet[], side: number): void {
  for (const ports of sets) {
    for (const { first, last } of ports) {
      for (let port = first; port <= last; port++) marks[port] = (marks[port] ?? 0) | side;
    }
  }
}
