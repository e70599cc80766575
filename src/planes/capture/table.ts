import type { IpAddress } from '../../model/address.js';
import { captureAddress, type CapturePlan } from '../../model/capture.js';
import { portSetSize, portsOf, type PortSet } from '../../model/ports.js';
import {
  addressText,
  addressType,
  chainText,
  ipWord,
  tableText,
  type Elements,
  type KernelSetup,
} from '../netfilter/setup.js';
import {
  anyIpRoute,
  instanceTag,
  loopbackAddress,
  tableOf,
  type RoutingEntry,
} from '../netfilter/routing.js';

/*
 * Chains of the table, in the order in which a packet meets them:
 *
 *   ageing    conntrack keeps new captured UDP flows longer than haports does, so that what the socket sees as the
 *             sender of a datagram means the same flow as long as haports knows it
 *   steer     DNAT: the first packet of a captured flow; conntrack does the rest, and undoes it in replies
 *   guard     private addresses and ports are reached only so
 */

/** Before the usual `dstnat` (-100), so that a port of ours is ours; `mangle` (-150) comes after conntrack (-200). */
const STEER_PRIORITY = -105;
const AGEING_PRIORITY = -150;
const GUARD_PRIORITY = -5;

/** The table of captureSetup, without elements. */
export function captureStructure(table: string, input: CaptureInput): string {
  const { frontends, plan } = input;
  const udp = frontends.filter((frontend) => udpPorts(frontend, plan));
  const steered = frontends.flatMap((frontend) => steerRules(frontend, input));
  const ageing = udp.map(
    (frontend) => `${udpMatch(frontend)} ct state new ct timeout set "${timeoutOf(frontend)}"`,
  );
  return tableText(table, [
    ...frontends.flatMap((frontend) => setDeclarations(frontend, plan)),
    ...timeouts(udp, input.udpEntrySeconds),
    ...(steered.length === 0 ? [] : chainText('steer', undefined, steered)),
    ...(ageing.length === 0 ? [] : chainText('ageing', undefined, ageing)),
    ...(steered.length === 0 ? [] : natHooks()),
    ...(ageing.length === 0 ? [] : ageingHooks()),
    ...chainText(
      'guard',
      `type filter hook input priority ${GUARD_PRIORITY}; policy accept;`,
      guardRules(input),
    ),
  ]);
}

function setDeclarations(frontend: CapturedFrontend, plan: CapturePlan): string[] {
  const names = captureSetNames(frontend);
  const intervalSet = '{ type inet_service; flags interval; }';
  return [
    ...(tcpPorts(frontend)
      ? [`  map ${names.tcp} { type inet_service : ${addressType(frontend.address.family)}; }`]
      : []),
    ...(udpPorts(frontend, plan) ? [`  set ${names.udp} ${intervalSet}`] : []),
  ];
}

function timeouts(udp: readonly CapturedFrontend[], seconds: number): string[] {
  const families = ([4, 6] as const).filter((family) => udp.some(({ address }) => address.family === family));
  return families.flatMap((family) => [
    `  ct timeout udp-${family} {`,
    '    protocol udp',
    `    l3proto ${ipWord(family)}`,
    `    policy = { unreplied : ${seconds}, replied : ${seconds} }`,
    '  }',
  ]);
}

function steerRules(frontend: CapturedFrontend, { plan, workers }: CaptureInput): string[] {
  const { address, slot } = frontend;
  const { family } = address;
  const rules: string[] = [];
  if (tcpPorts(frontend)) {
    const map = `tcp dport map @${captureSetNames(frontend).tcp}`;
    rules.push(`${daddr(frontend)} dnat ${ipWord(family)} to ${map} : ${plan.port}`);
  }
  if (udpPorts(frontend, plan)) {
    const { text } = captureAddress(family, slot, 0, plan.block);
    const target = family === 4 ? text : `[${text}]`;
    rules.push(
      `${udpMatch(frontend)} dnat ${ipWord(family)} to ${target} : ${udpPort(family, plan.port, workers)}`,
    );
  }
  return rules;
}

/** A client stays with one worker, whatever its port. */
function udpPort(family: 4 | 6, port: number, workers: number): string {
  if (workers <= 1) return String(port);
  const ports = Array.from({ length: workers }, (_, worker) => `${worker} : ${port + worker}`);
  return `jhash ${ipWord(family)} saddr mod ${workers} seed 0x0 map { ${ports.join(', ')} }`;
}

function natHooks(): string[] {
  // Packets of this machine's own clients meet the output hook instead.
  return (['prerouting', 'output'] as const).flatMap((hook) =>
    chainText(`nat-${hook}`, `type nat hook ${hook} priority ${STEER_PRIORITY}; policy accept;`, [
      'jump steer',
    ]),
  );
}

function ageingHooks(): string[] {
  const hook = (name: string): string =>
    `type filter hook ${name} priority ${AGEING_PRIORITY}; policy accept;`;
  return [
    ...chainText('divert', hook('prerouting'), ['jump ageing']),
    ...chainText('age-output', hook('output'), ['jump ageing']),
  ];
}

function guardRules({ frontends, plan }: CaptureInput): string[] {
  const direct = 'ct direction original ct status & dnat == 0';
  const prefixes = new Map(
    frontends
      .filter((frontend) => needsPrivateAddresses(frontend, plan))
      .map((frontend) => [slotPrefix(frontend, plan), ipWord(frontend.address.family)]),
  );
  return [
    ...frontends.filter(tcpPorts).map(strayRule),
    ...(frontends.some(tcpPorts) ? [`tcp dport ${plan.port} ${direct} reject with tcp reset`] : []),
    ...Array.from(prefixes, ([prefix, ip]) => `${ip} daddr ${prefix} ${direct} reject`),
  ];
}

/**
 * What conntrack cannot place (out of the window, say) is not translated. The frontend's own port has no socket, and
 * would answer with a reset, which ends a flow that could go on.
 */
function strayRule(frontend: CapturedFrontend): string {
  return `${daddr(frontend)} tcp dport @${captureSetNames(frontend).tcp} ct state invalid drop`;
}

function udpMatch(frontend: CapturedFrontend): string {
  return `${daddr(frontend)} udp dport @${captureSetNames(frontend).udp}`;
}

function daddr({ address }: CapturedFrontend): string {
  return `${ipWord(address.family)} daddr ${addressText(address)}`;
}

function timeoutOf({ address }: CapturedFrontend): string {
  return `udp-${address.family}`;
}

/** What the kernel needs to steer the frontends' ports as the plan says. */
export function captureSetup(input: CaptureInput): KernelSetup {
  const table = tableOf(input.instance);
  const tag = instanceTag(input.instance);
  const sets = new Map<string, Elements>();
  for (const frontend of input.frontends) {
    const names = captureSetNames(frontend);
    if (tcpPorts(frontend)) sets.set(names.tcp, tcpElements(frontend, input.plan));
    if (udpPorts(frontend, input.plan)) sets.set(names.udp, intervals(frontend.udpPorts));
  }
  const structure = captureStructure(table, input);
  return { table, tag, structure, sets, routing: captureRouting(input, tag), staleFlows: staleFlows(input) };
}

/** Flows to a frontend that it also answers from: those that were steered are answered from a private address. */
function staleFlows({ frontends, plan }: CaptureInput): string[][] {
  return frontends
    .filter((frontend) => udpPorts(frontend, plan))
    .map(({ address: { family, text } }) => [
      ...['-f', `ipv${family}`, '-p', 'udp'],
      ...['--orig-dst', text, '--reply-src', text],
    ]);
}

function tcpElements(frontend: CapturedFrontend, plan: CapturePlan): Elements {
  const { address, slot } = frontend;
  const elements = new Map<string, string>();
  const textOf = portAddressText(captureAddress(address.family, slot, 0, plan.block));
  for (const port of portsOf(frontend.tcpPorts)) elements.set(String(port), textOf(port));
  return elements;
}

/** The text of `captureAddress` for a port, without a parsed address for each of 65,535. */
function portAddressText(zero: IpAddress): (port: number) => string {
  if (zero.family === 4) {
    const prefix = zero.bytes.slice(0, 2).join('.');
    return (port) => `${prefix}.${port >> 8}.${port & 0xff}`;
  }
  return (port) => `${zero.text}${port.toString(16)}`;
}

function intervals(ports: PortSet): Elements {
  if (portSetSize(ports) === 0) return new Map();
  return new Map(ports.map(({ first, last }) => [first === last ? `${first}` : `${first}-${last}`, '']));
}

function captureRouting({ frontends, plan }: CaptureInput, tag: number): RoutingEntry[] {
  const entries = new Map<string, RoutingEntry>();
  const add = (entry: RoutingEntry): unknown =>
    entries.set(`${entry.object} ${entry.family} ${entry.args.join(' ')}`, entry);
  for (const frontend of frontends) {
    const { family } = frontend.address;
    if (needsPrivateAddresses(frontend, plan)) add(anyIpRoute(family, slotPrefix(frontend, plan), tag));
    // A socket can be bound to any address of a local IPv4 route; IPv6 wants the address itself.
    if (family === 6 && udpPorts(frontend, plan)) {
      add(loopbackAddress(6, captureAddress(6, frontend.slot, 0, plan.block).text, tag));
    }
  }
  return [...entries.values()];
}

/** A frontend whose ports are captured. */
export interface CapturedFrontend {
  /** Matches `[a-z0-9][a-z0-9-]{0,62}`; no two of one family have the same. */
  readonly name: string;
  /** No wildcard. */
  readonly address: IpAddress;
  /** Less what must not be captured. Empty: nothing of that protocol. */
  readonly tcpPorts: PortSet;
  readonly udpPorts: PortSet;
  /** Of `captureSlots`. */
  readonly slot: number;
}

export interface CaptureInput {
  readonly instance: string;
  readonly plan: CapturePlan;
  /** UDP sockets a frontend, at the ports from `plan.port`; at least 1. */
  readonly workers: number;
  readonly frontends: readonly CapturedFrontend[];
  /** How long conntrack keeps a captured UDP flow without datagrams; longer than any rule's idle timeout. */
  readonly udpEntrySeconds: number;
}

/** The names of a frontend's sets, or maps, in the table. */
export function captureSetNames({ name, address }: CapturedFrontend): {
  readonly tcp: string;
  readonly udp: string;
} {
  return { tcp: `tcp${address.family}-${name}`, udp: `udp${address.family}-${name}` };
}

/** Whether its TCP ports are captured. */
export function tcpPorts(frontend: CapturedFrontend): boolean {
  return frontend.tcpPorts.length > 0;
}

/** Whether its UDP ports are captured. */
export function udpPorts(frontend: CapturedFrontend, plan: CapturePlan): boolean {
  return plan.udp === 'redirect' && frontend.udpPorts.length > 0;
}

/** Whether it needs its private addresses. */
export function needsPrivateAddresses(frontend: CapturedFrontend, plan: CapturePlan): boolean {
  return tcpPorts(frontend) || udpPorts(frontend, plan);
}

/** All private addresses of a frontend: an IPv4 slot is a /16, an IPv6 one a /80. */
export function slotPrefix({ address, slot }: CapturedFrontend, plan: CapturePlan): string {
  return `${captureAddress(address.family, slot, 0, plan.block).text}/${address.family === 4 ? 16 : 80}`;
}
