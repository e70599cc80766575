import { PROTOCOLS, compareAddresses, isWildcard, type IpAddress, type Protocol } from '../model/address.js';
import {
  FLOW_POLICY_PRESETS,
  FLOW_TRIGGERS,
  type AdminOptions,
  type Backend,
  type BackendPool,
  type Configuration,
  type FlowPolicy,
  type Frontend,
  type Probe,
  type Rule,
  type Sourced,
  type UdpOptions,
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
import { error, type Issue, type Path } from './findings.js';
import type { Located, Written } from './read.js';
import {
  KERNEL_DEFAULTS,
  type BackendPoolInput,
  type KernelInput,
  type ProbeInput,
  type RootInput,
  type RuleInput,
} from './schema.js';

/**
 * A configuration, resolved and linked as far as it is right: what the checks look at, and what becomes the
 * Configuration where they find no error. Rules that name something missing, or whose ports are wrong, are left out.
 */
export interface Draft {
  readonly written: Written;
  readonly root: RootInput;
  /** What was asked for, even where something about it is wrong. */
  readonly plane: 'userspace' | 'kernel';
  /** Absent on the userspace plane, and where its options are wrong: then nothing can be said about its mode. */
  readonly kernel: KernelInput | undefined;
  /** Slots of a table on the data plane that was asked for. */
  readonly tableSize: number;
  readonly frontends: readonly Frontend[];
  readonly probes: readonly Probe[];
  readonly pools: readonly BackendPool[];
  readonly rules: readonly Rule[];
  /** What is wrong with the ports of rules. */
  readonly portIssues: readonly Issue[];
  /** Where haports itself listens, for others than clients. */
  readonly own: readonly OwnListen[];
  /** Addresses of this machine. */
  readonly ownAddresses: readonly IpAddress[];
  /** Where a thing of this draft was written, or a key of it. Throws TypeError on anything else. */
  readonly path: (thing: object, ...keys: Path) => Path;
  /** Whether a key was written, not left to its default. */
  readonly given: (thing: object, ...keys: Path) => boolean;
  /** As it was written: the data plane may have no use for some of it. */
  readonly input: (rule: Rule) => RuleInput;
}

/** The PEM texts of the files that a configuration names, by what it calls them; those that can be used. */
export type NamedTexts = ReadonlyMap<string, string>;

/** Links what was written and fills in every default. Pure. */
export function resolve(written: Written, texts: NamedTexts, ownAddresses: readonly IpAddress[]): Draft {
  const { root } = written;
  const paths = new Map<object, Path>();
  const inputs = new Map<Rule, RuleInput>();
  const place = <T extends object>(thing: T, path: Path): T => {
    paths.set(thing, path);
    return thing;
  };
  const placed = <I, T extends object>(items: readonly Located<I>[], make: (input: I) => T): T[] =>
    items.map(({ at, value }) => place(make(value), at));
  const path = (thing: object, ...keys: Path): Path => {
    const found = paths.get(thing);
    if (found === undefined) throw new TypeError('Asked for the place of something that is not in the draft');
    return [...found, ...keys];
  };

  const { capture } = root.dataPlane;
  const kernel = root.dataPlane.kind === 'kernel' ? (root.dataPlane.kernel ?? KERNEL_DEFAULTS) : undefined;
  const own = ownListens(root);
  place(root, []);
  if (capture !== undefined) place(capture, ['dataPlane', 'capture']);
  if (kernel !== undefined) place(kernel, KERNEL);
  if (root.admin !== undefined) place(root.admin, ['admin']);

  const frontends = placed(written.frontends, ({ idleTimeout: _, ...frontend }): Frontend => frontend);
  const probes = placed(written.probes, (input) => probeOf(input, texts));
  /** With floating IP in the kernel a backend terminates every frontend on the frontend's own address. */
  const kernelAliases = (pool: string) => {
    const ofPool = isFloating(kernel) ? written.rules.filter(({ value }) => value.backendPool === pool) : [];
    const named = new Set(ofPool.map(({ value }) => value.frontend));
    const served = frontends.filter(({ name }) => named.has(name));
    return Object.fromEntries(served.map(({ name, address }) => [name, address]));
  };
  const pools = placed(written.backendPools, (input) =>
    poolOf(input, kernel === undefined ? undefined : kernelAliases(input.name)),
  );
  for (const pool of pools) {
    for (const [index, backend] of pool.backends.entries()) place(backend, path(pool, 'backends', index));
  }

  const idleTimes = new Map(written.frontends.map(({ value }) => [value.name, value.idleTimeout]));
  const [frontendNamed, poolNamed, probeNamed] = [byName(frontends), byName(pools), byName(probes)];
  const portIssues: Issue[] = [];
  const rules = written.rules.flatMap((item) => {
    const { value: input } = item;
    const frontend = frontendNamed.get(input.frontend);
    const pool = poolNamed.get(input.backendPool);
    const probe = input.probe === undefined ? undefined : probeNamed.get(input.probe);
    const { issues, ports } = portsOf(item, frontend?.address, { root, own, kernel, given: written.given });
    portIssues.push(...issues);
    const lacksProbe = input.probe !== undefined && probe === undefined;
    if (ports === undefined || frontend === undefined || pool === undefined || lacksProbe) return [];
    const idle = idleTimes.get(frontend.name);
    const links = { frontend, pool, ...(probe === undefined ? {} : { probe }), ...ports };
    const rule = place(ruleOf(input, links, idle, kernel), item.at);
    inputs.set(rule, input);
    return [rule];
  });

  return {
    ...{ written, root, own, kernel, frontends, probes, pools, rules, portIssues, ownAddresses, path },
    plane: written.asksForKernel ? 'kernel' : 'userspace',
    tableSize: kernel?.tableSize ?? root.tableSize,
    given: (thing, ...keys) => written.given(path(thing, ...keys)),
    input(rule) {
      const input = inputs.get(rule);
      if (input === undefined) throw new TypeError(`Rule "${rule.name}" is not of this draft`);
      return input;
    },
  };
}

const KERNEL: Path = ['dataPlane', 'kernel'];

function byName<T extends { readonly name: string }>(items: readonly T[]): ReadonlyMap<string, T> {
  return new Map(items.map((item) => [item.name, item]));
}

/** Whether packets reach backends with the frontend's address on them. */
export function isFloating(kernel: Pick<KernelInput, 'mode'> | undefined): boolean {
  return kernel?.mode === 'floating-l2' || kernel?.mode === 'floating-routed';
}

/** Azure's cap on the time of an HTTP probe. */
const MAXIMUM_HTTP_TIMEOUT_MS = 30_000;

function probeOf({ threshold, ca, ...input }: ProbeInput, texts: NamedTexts): Probe {
  const { protocol, intervalMs } = input;
  const thresholds = { upThreshold: threshold.up, downThreshold: threshold.down };
  if (protocol === 'tcp') return { timeoutMs: intervalMs, ...input, ...thresholds, protocol };
  return {
    timeoutMs: Math.min(intervalMs, MAXIMUM_HTTP_TIMEOUT_MS),
    path: '/',
    expectStatus: [{ first: 200, last: 200 }],
    skipVerify: false,
    explicitAnswerFlips: true,
    ...input,
    ...thresholds,
    protocol,
    ...(ca === undefined ? {} : { ca: texts.get(ca) }),
  };
}

/** @param aliases - absent: as the operator wrote them */
function poolOf(
  { maxConnections, ...pool }: BackendPoolInput,
  aliases?: Backend['floatingAddresses'],
): BackendPool {
  const cap = maxConnections === undefined ? {} : { maxConnections };
  return {
    ...pool,
    backends: pool.backends.map((backend): Backend => {
      const { text } = backend.address;
      const floatingAddresses = aliases ?? backend.floatingAddresses;
      return { id: `${pool.name}/${text}`, name: text, ...cap, ...backend, floatingAddresses };
    }),
  };
}

type RulePorts = Pick<Rule, 'protocols' | 'haPorts' | 'ports' | 'portOffset'>;
type RuleLinks = RulePorts & Pick<Rule, 'frontend' | 'pool' | 'probe'>;
type IdleTimeout = RuleInput['idleTimeout'];

function ruleOf(
  input: RuleInput,
  links: RuleLinks,
  ofFrontend: IdleTimeout,
  kernel: KernelInput | undefined,
): Rule {
  const { keepAlive, noDelay } = input.tcp ?? { noDelay: true, keepAlive: 'off' };
  const idleTimeout = (protocol: Protocol): Sourced<number> =>
    idleTimeoutOf(protocol, ofFrontend, input.idleTimeout);
  return {
    name: input.name,
    ...links,
    // With next-hop there is nothing that could float: destinations lie beyond.
    floatingIp: input.floatingIp && kernel?.mode !== 'next-hop',
    distribution: input.distribution ?? 'five-tuple',
    symmetric: input.symmetric,
    idleTimeoutMs: { tcp: idleTimeout('tcp'), udp: idleTimeout('udp') },
    tcpReset: input.tcpReset ?? true,
    flowPolicy: flowPolicyOf(input, links.pool),
    allDown: input.allDown,
    tcp: { noDelay, ...(keepAlive === 'off' ? {} : { keepAliveMs: keepAlive }) },
    udp: kernel === undefined ? udpOf(input, links) : { perPacket: false },
  };
}

/** Azure's default for load-balancing rules; its documentation gives none for UDP, so 30 s is haports' own. */
const DEFAULT_IDLE_MS: Readonly<Record<Protocol, number>> = { tcp: 240_000, udp: 30_000 };

/** In ms. The frontend's overrides the rule's (Azure: the frontend IP's idle timeout takes precedence). */
function idleTimeoutOf(protocol: Protocol, ofFrontend: IdleTimeout, ofRule: IdleTimeout): Sourced<number> {
  const [frontend, rule] = [ofFrontend?.[protocol], ofRule?.[protocol]];
  if (frontend !== undefined) return { value: frontend, origin: 'frontend' };
  if (rule !== undefined) return { value: rule, origin: 'rule' };
  return { value: DEFAULT_IDLE_MS[protocol], origin: 'default' };
}

/**
 * The preset, and over it what the rule says. In Azure, established TCP outlives its backend's probe only in a pool of
 * more than one ("Probe down behavior"). A rule that fails open keeps using its only backend, so there flows stay too.
 */
function flowPolicyOf({ flowPolicy, allDown }: RuleInput, { backends }: BackendPool): FlowPolicy {
  const preset = FLOW_POLICY_PRESETS[flowPolicy.preset];
  const isOnly = flowPolicy.preset === 'azure' && backends.length === 1 && allDown !== 'fail-open';
  const policy = FLOW_TRIGGERS.map((trigger) => {
    const ofOne = isOnly && trigger === 'probe-down' ? { tcp: 'reset' } : {};
    return [trigger, { ...preset[trigger], ...ofOne, ...flowPolicy.changes[trigger] }];
  });
  return Object.fromEntries(policy) as FlowPolicy;
}

/**
 * Where `answersFrom` is not written: HA ports with `source-ip` are for protocols that need several ports, so all that a
 * client and its backend send each other, from any port, belongs together.
 */
function udpOf({ udp, distribution }: RuleInput, { haPorts }: RulePorts): UdpOptions {
  const { answersFrom, ...options } = udp ?? { perPacket: false };
  const isCounted = options.perPacket || options.expectedResponses !== undefined;
  const byDefault = haPorts && distribution === 'source-ip' && !isCounted ? 'address' : 'endpoint';
  return (answersFrom ?? byDefault) === 'address' ? { ...options, answersFrom: 'address' } : options;
}

/** The ports of a rule, or all that is wrong with them. */
function portsOf(
  { at: path, value: input }: Located<RuleInput>,
  address: IpAddress | undefined,
  settings: Pick<Draft, 'root' | 'own' | 'kernel'> & Pick<Written, 'given'>,
): { readonly ports?: RulePorts; readonly issues: readonly Issue[] } {
  const { capture } = settings.root.dataPlane;
  const { backendPort } = input;
  const frontendPort: PortRange = input.frontendPort ?? { first: 0, last: 0 };
  const haPorts = frontendPort.first === 0;
  const portOffset = haPorts || backendPort === 0 ? 0 : backendPort - frontendPort.first;
  const named = haPorts ? ALL_PORTS : [frontendPort];
  const limited = input.listenPorts === undefined ? named : intersectPorts(named, input.listenPorts);
  const excluded = capture?.excludedPorts ?? [];

  const issues = input.haPorts ? shorthandIssues(path, input) : missingIssues(path, input);
  if (!input.haPorts && haPorts && backendPort !== 0) {
    issues.push(
      error('V1', [...path, 'backendPort'], 'Every frontend port cannot go to one backend port', {
        found: String(backendPort),
        expected: '0 (the same port) where frontendPort is 0',
        reason:
          'HA ports keep the port: Azure demands protocol all, frontend port 0 and backend port 0 together',
      }),
    );
  }
  if (frontendPort.last + portOffset > 65535) {
    issues.push(
      error('LB_VALUE', [...path, 'backendPort'], 'The target range must end at 65535 or below', {
        found: `${backendPort}-${frontendPort.last + portOffset}`,
        expected: `at most ${65535 - frontendPort.last + frontendPort.first}`,
      }),
    );
  }
  // With the default, a rule that names port 22 means it.
  const isExcluded = settings.given(EXCLUDED_PORTS) && portSetsMeet(limited, excluded);
  if (!haPorts && isExcluded) {
    const both = formatPortSet(intersectPorts(limited, excluded));
    const message = `Port ${both} is among dataPlane.capture.excludedPorts`;
    const expected = 'ports that are not excluded, or excludedPorts without them';
    const found = formatPortSet(limited);
    issues.push(error('LB_CONFLICT', [...path, 'frontendPort'], message, { found, expected }));
  }
  if (issues.length > 0) return { issues };

  const own = address === undefined ? [] : ownListensAt(settings, address).map((listen) => listen.ports);
  const ports = haPorts ? subtractPorts(limited, own.reduce(unionPorts, excluded)) : limited;
  if (portSetSize(ports) === 0) {
    const less = capture === undefined ? '' : ' and excludedPorts';
    const message = `No port is left to listen on: ${formatPortSet(named)} within listenPorts, less haports' own ports${less}`;
    return { issues: [error('LB_CONFLICT', [...path, 'listenPorts'], message)] };
  }
  const protocol = input.haPorts ? 'all' : (input.protocol ?? 'all');
  const protocols = protocol === 'all' ? PROTOCOLS : [protocol];
  return { issues, ports: { protocols, haPorts, ports, portOffset } };
}

const EXCLUDED_PORTS: Path = ['dataPlane', 'capture', 'excludedPorts'];

function missingIssues(path: Path, input: RuleInput): Issue[] {
  const missing = (['protocol', 'frontendPort'] as const).filter((key) => input[key] === undefined);
  return missing.map((key) =>
    error('LB_MISSING_KEY', [...path, key], `Missing key "${key}", needed unless "haPorts" is true`),
  );
}

/** What is written beside `haPorts` and contradicts it. */
function shorthandIssues(path: Path, { protocol = 'all', frontendPort, backendPort }: RuleInput): Issue[] {
  const range = frontendPort === undefined || frontendPort.last === 0 ? '0' : formatPortSet([frontendPort]);
  const said = [
    ['protocol', protocol, 'all'],
    ['frontendPort', range, '0'],
    ['backendPort', String(backendPort), '0'],
  ] as const;
  return said
    .filter(([, found, expected]) => found !== expected)
    .map(([key, found, expected]) => {
      const message = `haPorts means ${key} ${expected}, found ${found}`;
      return error('LB_CONFLICT', [...path, key], message, { found, expected });
    });
}

/** A set moved by `offset`, as the backend sees it. */
export function shiftPorts(ports: PortSet, offset: number): PortSet {
  if (offset === 0) return ports;
  return ports.map(({ first, last }) => ({ first: first + offset, last: last + offset }));
}

/** Whether one socket bound to each could get the same packet. `::` counts as both families (dual stack). */
export function addressesOverlap(a: IpAddress, b: IpAddress): boolean {
  const takesAll = (wild: IpAddress, other: IpAddress) =>
    isWildcard(wild) && (wild.family === 6 || other.family === 4);
  return compareAddresses(a, b) === 0 || takesAll(a, b) || takesAll(b, a);
}

/** A place where haports itself takes TCP connections that are no flows. */
export interface OwnListen extends Pick<Rule, 'protocols' | 'ports'> {
  readonly what: string;
  readonly at: Path;
  readonly address: IpAddress;
  /** 0: any free one. It takes one that nothing else has, so `ports` is empty then. */
  readonly port: number;
}

/** Metrics and the admin API. */
function ownListens({ metrics, admin }: RootInput): readonly OwnListen[] {
  const named = [
    { what: "haports' metrics", at: ['metrics', 'listen'], listen: metrics?.listen },
    { what: "haports' admin API", at: ['admin', 'http'], listen: admin?.http },
  ];
  return named.flatMap(({ what, at, listen }): OwnListen[] => {
    if (listen === undefined) return [];
    const ports = listen.port === 0 ? [] : portSetOf(listen.port);
    return [{ what, at, ...listen, protocols: ['tcp'], ports }];
  });
}

/**
 * Those that would get what is sent to `frontend`. Packets for addresses that this machine need not have, or has not,
 * reach none of its wildcard listeners; packets for destinations beyond reach none at all.
 */
export function ownListensAt(
  { own, kernel }: Pick<Draft, 'own' | 'kernel'>,
  frontend: IpAddress,
): readonly OwnListen[] {
  if (kernel?.mode === 'next-hop') return [];
  return own.filter(({ address }) =>
    isFloating(kernel) ? compareAddresses(address, frontend) === 0 : addressesOverlap(address, frontend),
  );
}

/** What a draft without errors becomes, frozen all the way down. */
export function configurationOf(draft: Draft, texts: NamedTexts, digest: string): Configuration {
  const { root, kernel, frontends, probes, pools: backendPools, rules, tableSize } = draft;
  const { dataPlane, limits, logging, flowLog, metrics, admin, events, shutdown } = root;
  const { tableSize: _, ...options } = kernel ?? KERNEL_DEFAULTS;
  return deepFreeze<Configuration>({
    ...{ digest, compat: root.compat, seed: root.seed, tableSize },
    // The kernel data plane lives in the control process.
    workers: kernel === undefined ? dataPlane.workers : 0,
    instance: dataPlane.instance,
    ...(dataPlane.capture === undefined ? {} : { capture: dataPlane.capture }),
    ...(kernel === undefined ? {} : { kernel: options }),
    ...{ frontends, probes, backendPools, rules, limits, logging },
    ...(flowLog === undefined ? {} : { flowLog }),
    ...(metrics === undefined ? {} : { metrics: metrics.listen }),
    ...(admin === undefined ? {} : { admin: adminOf(admin, texts) }),
    ...(events?.webhook === undefined ? {} : { webhook: { url: events.webhook } }),
    shutdownDeadlineMs: shutdown.deadline,
  });
}

function adminOf({ tls, ...admin }: NonNullable<RootInput['admin']>, texts: NamedTexts): AdminOptions {
  if (tls === undefined) return admin;
  const text = (file: string) => texts.get(file) ?? '';
  return { ...admin, tls: { certificate: text(tls.certificate), key: text(tls.key) } };
}

/** Freezes plain data all the way down and returns it. Typed arrays stay as they are: JavaScript cannot freeze them. */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) {
    return value;
  }
  Object.freeze(value);
  for (const member of Object.values(value)) deepFreeze<unknown>(member);
  return value;
}
