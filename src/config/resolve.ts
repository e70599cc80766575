import { X509Certificate, createHash, createPrivateKey } from 'node:crypto';
import {
  linkRules,
  type AdminOptions,
  type Backend,
  type BackendPool,
  type Configuration,
  type FlapDamping,
  type Frontend,
  type KernelOptions,
  type NamedRule,
  type Probe,
  type UdpOptions,
} from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import { answersFromOf, flowPolicyOf, idleTimeoutOf, type BoundRule } from './bind-rules.js';
import { isFloating } from './checks/kernel.js';
import { tableSizeOf, type Draft } from './draft.js';
import { error, type Issue, type Path } from './findings.js';
import type { ProbeInput } from './schema-probe.js';
import type { AdminInput, BackendPoolInput, FrontendInput, KernelInput } from './schema.js';

/** Azure's cap on the time of an HTTP probe. */
const MAXIMUM_HTTP_TIMEOUT_MS = 30_000;

/** What a faultless draft becomes: every default filled in, frozen all the way down. */
export interface ResolveInput {
  readonly draft: Draft;
  readonly rules: readonly BoundRule[];
  readonly texts: NamedTexts;
  readonly digest: string;
}

export function resolveConfiguration({ draft, rules, texts, digest }: ResolveInput): Configuration {
  const { root } = draft;
  const { embryonicTimeout, ...limits } = root.limits;
  const kernel = draft.plane.kind === 'kernel' ? draft.plane.options : undefined;
  const frontends = draft.frontends.map(({ value }) => frontend(value));
  const probes = draft.probes.map(({ value }) => probe(value, texts.authorities.get(value.name)));
  const backendPools = draft.pools.map(({ value }) => pool(value, floatingAddressesOf(value, rules, kernel)));
  return deepFreeze<Configuration>({
    digest,
    compat: root.compat,
    seed: root.seed,
    tableSize: tableSizeOf(draft),
    // The kernel data plane lives in the control process.
    workers: kernel === undefined ? root.dataPlane.workers : 0,
    instance: root.dataPlane.instance,
    ...(root.dataPlane.capture === undefined ? {} : { capture: root.dataPlane.capture }),
    ...(kernel === undefined ? {} : { kernel: kernelOptions(kernel) }),
    ...{ frontends, probes, backendPools },
    rules: linkRules(
      rules.map((bound) => rule(bound, kernel)),
      { frontends, probes, backendPools },
    ),
    limits: { ...limits, embryonicTimeoutMs: embryonicTimeout },
    logging: root.logging,
    ...(root.flowLog === undefined ? {} : { flowLog: root.flowLog }),
    ...(root.metrics === undefined ? {} : { metrics: root.metrics.listen }),
    ...(root.admin === undefined ? {} : { admin: admin(root.admin, texts) }),
    ...(root.events?.webhook === undefined ? {} : { webhook: { url: root.events.webhook } }),
    shutdownDeadlineMs: root.shutdown.deadline,
  });
}

function admin({ socket, http, token }: AdminInput, { adminTls }: NamedTexts): AdminOptions {
  return {
    ...(socket === undefined ? {} : { socket }),
    ...(http === undefined ? {} : { http }),
    ...(adminTls === undefined ? {} : { tls: adminTls }),
    ...(token === undefined ? {} : { token }),
  };
}

function frontend({ name, address, proxyProtocol, allow, deny }: FrontendInput): Frontend {
  if (proxyProtocol === undefined) return { name, address, allow, deny };
  const { headerTimeout, ...rest } = proxyProtocol;
  return { name, address, allow, deny, proxyProtocol: { ...rest, headerTimeoutMs: headerTimeout } };
}

function kernelOptions(input: KernelInput): KernelOptions {
  const { mode, returnPath, flowState, spokes, manageSysctls, onStop } = input;
  return {
    ...{ mode, returnPath, flowState, spokes, manageSysctls, onStop },
    ...(input.interface === undefined ? {} : { interface: input.interface }),
  };
}

/**
 * With the kernel data plane a backend terminates every frontend with floating IP on the frontend's own address; `given`
 * are those of a backend for the userspace data plane.
 */
function floatingAddressesOf(
  pool: BackendPoolInput,
  rules: readonly BoundRule[],
  kernel: KernelInput | undefined,
): (given: Backend['floatingAddresses']) => Backend['floatingAddresses'] {
  if (kernel === undefined) return (given) => given;
  const floating = rules.filter((bound) => bound.pool.value === pool && isFloating(kernel));
  const own = Object.fromEntries(floating.map(({ frontend: { value } }) => [value.name, value.address]));
  return () => own;
}

function pool(
  input: BackendPoolInput,
  floatingAddresses: (given: Backend['floatingAddresses']) => Backend['floatingAddresses'],
): BackendPool {
  const { name, minimumHealthy, sourceAddresses, sourcePorts, proxyProtocol, connectAttempts } = input;
  return {
    name,
    minimumHealthy,
    sourceAddresses,
    sourcePorts,
    proxyProtocol,
    connectAttempts,
    connectTimeoutMs: input.connectTimeout,
    ...(input.slowStart === undefined ? {} : { slowStartMs: input.slowStart }),
    backends: input.backends.map((backend): Backend => {
      const maxConnections = backend.maxConnections ?? input.maxConnections;
      return {
        id: `${name}/${backend.address.text}`,
        name: backend.name ?? backend.address.text,
        address: backend.address,
        weight: backend.weight,
        priority: backend.priority,
        adminState: backend.adminState,
        floatingAddresses: floatingAddresses(backend.floatingAddresses),
        ...(maxConnections === undefined ? {} : { maxConnections }),
      };
    }),
  };
}

/** The timeout where none is given: the interval, but for HTTP at most 30 s (Azure). */
function probeTimeoutMs({ protocol, interval, timeout }: ProbeInput): number {
  return timeout ?? (protocol === 'tcp' ? interval : Math.min(interval, MAXIMUM_HTTP_TIMEOUT_MS));
}

function probe(input: ProbeInput, ca: string | undefined): Probe {
  const { name, port, sourceAddress, sendProxy } = input;
  const base = {
    name,
    port,
    sendProxy,
    intervalMs: input.interval,
    timeoutMs: probeTimeoutMs(input),
    upThreshold: input.threshold.up,
    downThreshold: input.threshold.down,
    ...(sourceAddress === undefined ? {} : { sourceAddress }),
    ...(input.flapDamping === undefined ? {} : { flapDamping: flapDamping(input.flapDamping) }),
  };
  if (input.protocol === 'tcp') return { ...base, protocol: 'tcp' };
  const { host, serverName, expectBody, weightFromProbeHeader } = input;
  return {
    ...base,
    protocol: input.protocol,
    path: input.path ?? '/',
    expectStatus: input.expectStatus ?? [{ first: 200, last: 200 }],
    skipVerify: input.skipVerify ?? false,
    explicitAnswerFlips: input.explicitAnswerFlips ?? true,
    ...(host === undefined ? {} : { host }),
    ...(serverName === undefined ? {} : { serverName }),
    ...(expectBody === undefined ? {} : { expectBody }),
    ...(ca === undefined ? {} : { ca }),
    ...(weightFromProbeHeader === undefined ? {} : { weightFromProbeHeader }),
  };
}

function flapDamping(input: NonNullable<ProbeInput['flapDamping']>): FlapDamping {
  return { transitions: input.transitions, windowMs: input.window, holdMs: input.hold };
}

function rule(bound: BoundRule, kernel: KernelInput | undefined): NamedRule {
  const { input, protocols, haPorts, ports, portOffset } = bound;
  const { keepAlive, noDelay } = input.tcp ?? { noDelay: true, keepAlive: 'off' };
  return {
    name: input.name,
    frontend: input.frontend,
    backendPool: input.backendPool,
    ...(input.probe === undefined ? {} : { probe: input.probe }),
    protocols,
    haPorts,
    ports,
    portOffset,
    // With next-hop there is nothing that could float: destinations lie beyond.
    floatingIp: input.floatingIp && kernel?.mode !== 'next-hop',
    distribution: input.distribution ?? 'five-tuple',
    symmetric: input.symmetric,
    idleTimeoutMs: { tcp: idleTimeoutOf(bound, 'tcp'), udp: idleTimeoutOf(bound, 'udp') },
    tcpReset: input.tcpReset ?? true,
    flowPolicy: flowPolicyOf(bound),
    allDown: input.allDown,
    tcp: { noDelay, ...(keepAlive === 'off' ? {} : { keepAliveMs: keepAlive }) },
    udp: kernel === undefined ? udpOptions(bound) : { perPacket: false },
  };
}

function udpOptions(rule: BoundRule): UdpOptions {
  const { perPacket, expectedResponses } = rule.input.udp ?? { perPacket: false };
  return {
    perPacket,
    ...(expectedResponses === undefined ? {} : { expectedResponses }),
    ...(answersFromOf(rule) === 'address' ? { answersFrom: 'address' } : {}),
  };
}

/** Freezes plain data all the way down and returns it. Typed arrays stay as they are: JavaScript cannot freeze them. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) {
    return value;
  }
  Object.freeze(value);
  for (const member of Object.values(value)) deepFreeze<unknown>(member);
  return value;
}

/** JSON with the keys of every object in order, so that equal values have equal text. Takes what JSON.parse gives. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value);
}

/**
 * SHA-256, in hex, of the canonical JSON of what the operator wrote. `$schema` does not count; the contents of files
 * that the configuration names do not either. Nor does the admin token: the digest is in logs and metrics, where a
 * weak token could be found by trying.
 */
export function configurationDigest(raw: unknown): string {
  const counted =
    typeof raw === 'object' && raw !== null && !Array.isArray(raw)
      ? Object.fromEntries(
          Object.entries(raw)
            .filter(([key]) => key !== '$schema')
            .map(([key, value]) => [key, key === 'admin' ? withoutToken(value) : value]),
        )
      : raw;
  return createHash('sha256').update(canonicalJson(counted)).digest('hex');
}

function withoutToken(admin: unknown): unknown {
  if (typeof admin !== 'object' || admin === null) return admin;
  return Object.fromEntries(Object.entries(admin).filter(([key]) => key !== 'token'));
}

/** The texts of the files that a configuration names. */
export interface NamedTexts {
  /** Probe name to the PEM text of its CA file. */
  readonly authorities: ReadonlyMap<string, string>;
  /** Of the admin API. Present if both could be read and belong together. */
  readonly adminTls?: { readonly certificate: string; readonly key: string };
  readonly issues: readonly Issue[];
}

interface Kind {
  /** `certificate` */
  readonly holds: string;
  readonly pem: RegExp;
}

const CERTIFICATE: Kind = { holds: 'certificate', pem: /-----BEGIN (?:TRUSTED )?CERTIFICATE-----/ };
const KEY: Kind = {
  holds: 'private key without a passphrase',
  pem: /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/,
};

/**
 * Reads every file that the configuration names.
 * @param readFile - the text of a file, or throws; undefined: files are refused
 */
export function readNamedFiles(
  { probes, root: { admin } }: Draft,
  readFile: ((path: string) => string) | undefined,
): NamedTexts {
  const issues: Issue[] = [];
  const read = (file: string, path: Path, kind: Kind): string | undefined => {
    const outcome = readPem(file, kind, readFile);
    if (outcome.ok) return outcome.text;
    const { message, expected } = outcome;
    const key = String(path.at(-1));
    issues.push(
      error('LB_CONFIG_UNREADABLE', path, message, {
        found: `"${file}"`,
        expected: expected ?? `no "${key}" here`,
      }),
    );
    return undefined;
  };

  const authorities = new Map<string, string>();
  for (const { path, value: probe } of probes) {
    const text = probe.ca === undefined ? undefined : read(probe.ca, [...path, 'ca'], CERTIFICATE);
    if (text !== undefined) authorities.set(probe.name, text);
  }
  if (admin?.tls === undefined) return { authorities, issues };
  const certificate = read(admin.tls.certificate, ['admin', 'tls', 'certificate'], CERTIFICATE);
  const key = read(admin.tls.key, ['admin', 'tls', 'key'], KEY);
  if (certificate === undefined || key === undefined) return { authorities, issues };
  const wrong = pairProblem(certificate, key);
  if (wrong === undefined) return { authorities, adminTls: { certificate, key }, issues };
  const { tls } = admin;
  issues.push(
    error('LB_TLS_PAIR', ['admin', 'tls'], `Certificate and key cannot be used together: ${wrong}`, {
      found: `"${tls.certificate}" and "${tls.key}"`,
      expected: 'a certificate and its own private key',
    }),
  );
  return { authorities, issues };
}

type Outcome =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly message: string; readonly expected?: string };

function readPem(
  file: string,
  { holds, pem }: Kind,
  readFile: ((path: string) => string) | undefined,
): Outcome {
  if (readFile === undefined) {
    return { ok: false, message: 'Files can only be named in a configuration file' };
  }
  try {
    const text = readFile(file);
    if (pem.test(text)) return { ok: true, text };
    return { ok: false, message: `File "${file}" holds no ${holds}`, expected: `a PEM file with a ${holds}` };
  } catch (thrown) {
    const message = `File "${file}" cannot be read: ${errorMessage(thrown)}`;
    return { ok: false, message, expected: 'a PEM file that can be read' };
  }
}

function pairProblem(certificate: string, key: string): string | undefined {
  try {
    const belongs = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
    return belongs ? undefined : 'the key is that of another certificate';
  } catch (thrown) {
    return errorMessage(thrown);
  }
}
