import type { AdminOptions, Backend, BackendPool, Configuration, Frontend } from '../model/configuration.js';
import type { KernelOptions } from '../model/kernel-options.js';
import type { FlapDamping, Probe } from '../model/probe.js';
import type { Rule, UdpOptions } from '../model/rule.js';
import { answersFromOf } from './answers-from.js';
import type { BoundRule } from './bind-rules.js';
import { isFloating } from './check-kernel.js';
import { deepFreeze } from './deep-freeze.js';
import { tableSizeOf, type Draft } from './draft.js';
import { flowPolicyOf } from './flow-policy.js';
import { idleTimeoutOf } from './idle-timeout.js';
import type { NamedTexts } from './named-files.js';
import type { FrontendInput } from './schema-frontend.js';
import type { KernelInput } from './schema-kernel.js';
import type { BackendPoolInput } from './schema-pool.js';
import type { ProbeInput } from './schema-probe.js';
import type { AdminInput } from './schema-process.js';

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
    frontends: draft.frontends.map(({ value }) => frontend(value)),
    probes: draft.probes.map(({ value }) => probe(value, texts.authorities.get(value.name))),
    backendPools: draft.pools.map(({ value }) => pool(value, floatingAddressesOf(value, rules, kernel))),
    rules: rules.map((bound) => rule(bound, kernel)),
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

function rule(bound: BoundRule, kernel: KernelInput | undefined): Rule {
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
