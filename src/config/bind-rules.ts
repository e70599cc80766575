import { PROTOCOLS, compareAddresses, isWildcard, type IpAddress, type Protocol } from '../model/address.js';
import {
  FLOW_POLICY_PRESETS,
  type AnswersFrom,
  type FlowPolicy,
  type Sourced,
} from '../model/configuration.js';
import {
  ALL_PORTS,
  formatPortSet,
  intersectPorts,
  portSetOf,
  portSetSize,
  portSetsMeet,
  subtractPorts,
  unionPorts,
  type PortRange,
  type PortSet,
} from '../model/ports.js';
import type { Draft, Located } from './draft.js';
import { error, type Issue, type Path } from './findings.js';
import type { ProbeInput } from './schema-probe.js';
import type { BackendPoolInput, FlowPolicyInput, FrontendInput, RuleInput } from './schema.js';

/** A rule with its references followed and its ports worked out. */
export interface BoundRule {
  readonly path: Path;
  readonly input: RuleInput;
  readonly frontend: Located<FrontendInput>;
  readonly pool: Located<BackendPoolInput>;
  readonly probe?: Located<ProbeInput>;
  readonly protocols: readonly Protocol[];
  /** Frontend port 0 and backend port 0. */
  readonly haPorts: boolean;
  /** What is listened on: never empty. */
  readonly ports: PortSet;
  /** Backend port less frontend port. */
  readonly portOffset: number;
}

const EXCLUDED_PORTS: Path = ['dataPlane', 'capture', 'excludedPorts'];

export interface Binding {
  readonly rules: readonly BoundRule[];
  readonly issues: readonly Issue[];
}

type Ports = Pick<BoundRule, 'protocols' | 'haPorts' | 'ports' | 'portOffset'>;

/** Rules that name something missing are left out: check-names has told. */
export function bindRules(draft: Draft): Binding {
  const frontends = byName(draft.frontends);
  const pools = byName(draft.pools);
  const probes = byName(draft.probes);
  const rules: BoundRule[] = [];
  const issues: Issue[] = [];
  for (const { path, value: input } of draft.rules) {
    const frontend = frontends.get(input.frontend);
    const ports = portsOfRule(draft, path, input, frontend?.value.address);
    if (!ports.ok) issues.push(...ports.issues);
    const pool = pools.get(input.backendPool);
    const probe = input.probe === undefined ? undefined : probes.get(input.probe);
    const probeIsThere = input.probe === undefined || probe !== undefined;
    if (!ports.ok || frontend === undefined || pool === undefined || !probeIsThere) continue;
    rules.push({ path, input, frontend, pool, ...(probe === undefined ? {} : { probe }), ...ports.value });
  }
  return { rules, issues };
}

/** A set moved by `offset`, as the backend sees it. */
export function shiftPorts(ports: PortSet, offset: number): PortSet {
  return offset === 0
    ? ports
    : ports.map(({ first, last }) => ({ first: first + offset, last: last + offset }));
}

function byName<T extends { readonly name: string }>(items: readonly Located<T>[]): Map<string, Located<T>> {
  return new Map(items.map((item) => [item.value.name, item]));
}

type PortsOutcome =
  { readonly ok: true; readonly value: Ports } | { readonly ok: false; readonly issues: readonly Issue[] };

function portsOfRule(
  draft: Draft,
  path: Path,
  input: RuleInput,
  address: IpAddress | undefined,
): PortsOutcome {
  const issues = input.haPorts ? sugarIssues(path, input) : missingIssues(path, input);
  const frontendPort: PortRange = input.frontendPort ?? { first: 0, last: 0 };
  const anyPort = frontendPort.first === 0;
  if (!input.haPorts && anyPort && input.backendPort !== 0) {
    issues.push(
      error('V1', [...path, 'backendPort'], 'Every frontend port cannot go to one backend port', {
        found: String(input.backendPort),
        expected: '0 (the same port) where frontendPort is 0',
        reason:
          'HA ports keep the port: Azure demands protocol all, frontend port 0 and backend port 0 together',
      }),
    );
  }
  const portOffset = anyPort || input.backendPort === 0 ? 0 : input.backendPort - frontendPort.first;
  if (frontendPort.last + portOffset > 65535) {
    issues.push(
      error('LB_VALUE', [...path, 'backendPort'], 'The target range must end at 65535 or below', {
        found: `${input.backendPort}-${frontendPort.last + portOffset}`,
        expected: `at most ${65535 - frontendPort.last + frontendPort.first}`,
      }),
    );
  }
  const named = anyPort ? ALL_PORTS : [frontendPort];
  const limited = input.listenPorts === undefined ? named : intersectPorts(named, input.listenPorts);
  if (!anyPort) issues.push(...excludedIssues(draft, path, limited));
  if (issues.length > 0) return { ok: false, issues };

  const ports = anyPort ? subtractPorts(limited, leftAlone(draft, address)) : limited;
  if (portSetSize(ports) === 0) {
    const less = draft.root.dataPlane.capture === undefined ? '' : ' and excludedPorts';
    const message = `No port is left to listen on: ${formatPortSet(named)} within listenPorts, less haports' own ports${less}`;
    return { ok: false, issues: [error('LB_CONFLICT', [...path, 'listenPorts'], message)] };
  }
  const protocol = input.haPorts ? 'all' : (input.protocol ?? 'all');
  const protocols = protocol === 'all' ? PROTOCOLS : [protocol];
  return { ok: true, value: { protocols, haPorts: anyPort, ports, portOffset } };
}

/**
 * What an HA-ports rule does not get: ports that haports itself listens on at `address`, flows aside, and those that
 * are never captured.
 */
function leftAlone(draft: Draft, address: IpAddress | undefined): PortSet {
  const excluded = draft.root.dataPlane.capture?.excludedPorts ?? [];
  if (address === undefined) return excluded;
  return ownListensAt(draft, address).reduce<PortSet>(
    (ports, { port }) => unionPorts(ports, portSetOf(port)),
    excluded,
  );
}

/** A rule that names a port which the operator excluded by hand. With the default, who names 22 means it. */
function excludedIssues(draft: Draft, path: Path, named: PortSet): Issue[] {
  const excluded = draft.root.dataPlane.capture?.excludedPorts ?? [];
  if (!draft.given(EXCLUDED_PORTS) || !portSetsMeet(named, excluded)) return [];
  const both = formatPortSet(intersectPorts(named, excluded));
  return [
    error('LB_CONFLICT', [...path, 'frontendPort'], `Port ${both} is among dataPlane.capture.excludedPorts`, {
      found: formatPortSet(named),
      expected: 'ports that are not excluded, or excludedPorts without them',
    }),
  ];
}

function missingIssues(path: Path, input: RuleInput): Issue[] {
  return (['protocol', 'frontendPort'] as const)
    .filter((key) => input[key] === undefined)
    .map((key) =>
      error('LB_MISSING_KEY', [...path, key], `Missing key "${key}", needed unless "haPorts" is true`),
    );
}

function sugarIssues(path: Path, input: RuleInput): Issue[] {
  const conflict = (key: string, found: string, expected: string) =>
    error('LB_CONFLICT', [...path, key], `haPorts means ${key} ${expected}, found ${found}`, {
      found,
      expected,
    });
  const { protocol, frontendPort, backendPort } = input;
  const issues: Issue[] = [];
  if (protocol !== undefined && protocol !== 'all') issues.push(conflict('protocol', protocol, 'all'));
  if (frontendPort !== undefined && frontendPort.last !== 0) {
    issues.push(conflict('frontendPort', formatPortSet([frontendPort]), '0'));
  }
  if (backendPort !== 0) issues.push(conflict('backendPort', String(backendPort), '0'));
  return issues;
}

/** Whether one socket bound to each could get the same packet. `::` counts as both families (dual stack). */
export function addressesOverlap(a: IpAddress, b: IpAddress): boolean {
  const takesAll = (wild: IpAddress, other: IpAddress) =>
    isWildcard(wild) && (wild.family === 6 || other.family === 4);
  return compareAddresses(a, b) === 0 || takesAll(a, b) || takesAll(b, a);
}

/** A place where haports itself takes TCP connections that are no flows. */
export interface OwnListen {
  readonly what: string;
  readonly path: Path;
  readonly address: IpAddress;
  /** Never 0: what listens on any free port takes one that nobody else has. */
  readonly port: number;
}

/** Metrics and the admin API. */
export function ownListens({ root }: Draft): readonly OwnListen[] {
  const named = [
    { what: "haports' metrics", path: ['metrics', 'listen'], at: root.metrics?.listen },
    { what: "haports' admin API", path: ['admin', 'http'], at: root.admin?.http },
  ];
  return named.flatMap(({ what, path, at }) =>
    at === undefined || at.port === 0 ? [] : [{ what, path, address: at.address, port: at.port }],
  );
}

/**
 * Those that would get what is sent to `frontend`. Packets for addresses that this machine need not have, or has not,
 * reach none of its wildcard listeners; packets for destinations beyond reach none at all.
 */
export function ownListensAt(draft: Draft, frontend: IpAddress): readonly OwnListen[] {
  const mode = draft.plane.kind === 'kernel' ? draft.plane.options?.mode : undefined;
  if (mode === 'next-hop') return [];
  const reaches = mode === 'floating-l2' || mode === 'floating-routed' ? isSame : addressesOverlap;
  return ownListens(draft).filter(({ address }) => reaches(address, frontend));
}

function isSame(a: IpAddress, b: IpAddress): boolean {
  return compareAddresses(a, b) === 0;
}

/**
 * What holds where a rule does not say: HA ports with `source-ip` are for protocols that need several ports, and with
 * them all that a client and its backend say to each other, from whatever port, is one matter.
 */
export function answersFromOf({ input, haPorts }: Pick<BoundRule, 'input' | 'haPorts'>): AnswersFrom {
  const { perPacket = false, expectedResponses, answersFrom } = input.udp ?? {};
  if (answersFrom !== undefined) return answersFrom;
  const isOneMatter = haPorts && input.distribution === 'source-ip';
  return isOneMatter && !perPacket && expectedResponses === undefined ? 'address' : 'endpoint';
}

/** The preset, and over it what the rule says. */
export function flowPolicyOf(rule: Pick<BoundRule, 'input' | 'pool'>): FlowPolicy {
  const preset = presetFor(rule);
  const said: FlowPolicyInput = rule.input.flowPolicy;
  return {
    'probe-down': { ...preset['probe-down'], ...said.probeDown },
    'admin-down': { ...preset['admin-down'], ...said.adminDown },
    removed: { ...preset.removed, ...said.removed },
    'drain-deadline': { ...preset['drain-deadline'], ...said.drainDeadline },
    idle: { ...preset.idle, ...said.idle },
  };
}

/**
 * In Azure, established TCP outlives its backend's probe only in a pool of more than one ("Probe down behavior"). A
 * rule that fails open goes on using its only backend, so there the flows stay too.
 */
function presetFor({ input, pool }: Pick<BoundRule, 'input' | 'pool'>): FlowPolicy {
  const name = input.flowPolicy.preset;
  const preset = FLOW_POLICY_PRESETS[name];
  const isOnly = pool.value.backends.length === 1 && input.allDown !== 'fail-open';
  if (name !== 'azure' || !isOnly) return preset;
  return { ...preset, 'probe-down': { ...preset['probe-down'], tcp: 'reset' } };
}

/** Azure's default for load-balancing rules; its documentation gives none for UDP, so 30 s is haports' own. */
const DEFAULT_IDLE_MS: Readonly<Record<Protocol, number>> = { tcp: 240_000, udp: 30_000 };

/** In ms. The frontend's beats the rule's (Azure: the frontend IP's idle timeout takes precedence). */
export function idleTimeoutOf(
  { input, frontend }: Pick<BoundRule, 'input' | 'frontend'>,
  protocol: Protocol,
): Sourced<number> {
  const ofFrontend = frontend.value.idleTimeout?.[protocol];
  if (ofFrontend !== undefined) return { value: ofFrontend, origin: 'frontend' };
  const ofRule = input.idleTimeout?.[protocol];
  if (ofRule !== undefined) return { value: ofRule, origin: 'rule' };
  return { value: DEFAULT_IDLE_MS[protocol], origin: 'default' };
}
