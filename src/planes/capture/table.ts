import { PROTOCOLS, type IpAddress, type Protocol } from '../../model/address.js';
import { captureAddress, type CapturePlan } from '../../model/capture.js';
import { portsOf, type PortSet } from '../../model/ports.js';
import {
  addressText,
  addressType,
  chainText,
  ipWord,
  tableText,
  timeoutText,
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

/** A frontend whose ports are captured. */
export interface CapturedFrontend {
  /** Matches `[a-z0-9][a-z0-9-]{0,62}`; no two of one family have the same. */
  readonly name: string;
  /** No wildcard, and no other's. */
  readonly address: IpAddress;
  /** Less what must not be captured. Empty: nothing of that protocol. */
  readonly ports: Readonly<Record<Protocol, PortSet>>;
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

/** What the kernel needs to steer the frontends' ports as the plan says. */
export function captureSetup(input: CaptureInput): KernelSetup {
  const { instance, plan, frontends } = input;
  const [table, tag] = [tableOf(instance), instanceTag(instance)];
  const sets = new Map<string, Elements>();
  for (const frontend of frontends) {
    const { tcp, udp } = frontend.ports;
    if (tcp.length > 0) sets.set(setName(frontend, 'tcp'), privateAddresses(frontend, plan));
    if (udp.length > 0) sets.set(setName(frontend, 'udp'), intervals(udp));
  }
  // Flows to a frontend that it also answers from: those that were steered are answered from a private address.
  const staleFlows = having(frontends, 'udp').map(({ address: { family, text } }) => [
    ...['-f', `ipv${family}`, '-p', 'udp', '--orig-dst', text, '--reply-src', text],
  ]);
  const routing = frontends.flatMap((frontend) => routingOf(frontend, plan, tag));
  return { table, tag, structure: structureOf(table, input), sets, routing, staleFlows };
}

function structureOf(table: string, input: CaptureInput): string {
  const { frontends } = input;
  const steer = frontends.flatMap((frontend) => steerRules(frontend, input));
  const ageing = having(frontends, 'udp').map(
    (frontend) => `${match(frontend, 'udp')} ct state new ct timeout set "udp-${frontend.address.family}"`,
  );
  const chains = [
    {
      ...{ name: 'steer', rules: steer, type: 'nat', priority: STEER_PRIORITY },
      ...{ prerouting: 'nat-prerouting', output: 'nat-output' },
    },
    {
      ...{ name: 'ageing', rules: ageing, type: 'filter', priority: AGEING_PRIORITY },
      ...{ prerouting: 'divert', output: 'age-output' },
    },
  ].filter(({ rules }) => rules.length > 0);
  return tableText(table, [
    ...frontends.flatMap(setDeclarations),
    ...timeouts(input),
    ...chains.flatMap(({ name, rules }) => chainText(name, undefined, rules)),
    ...chains.flatMap(({ name, prerouting, output, type, priority }) => [
      ...hookText(prerouting, `${type} hook prerouting priority ${priority}`, [`jump ${name}`]),
      // Packets of this machine's own clients meet this one instead.
      ...hookText(output, `${type} hook output priority ${priority}`, [`jump ${name}`]),
    ]),
    ...hookText('guard', `filter hook input priority ${GUARD_PRIORITY}`, guardRules(input)),
  ]);
}

function hookText(name: string, hook: string, rules: readonly string[]): string[] {
  return chainText(name, `type ${hook}; policy accept;`, rules);
}

function setDeclarations(frontend: CapturedFrontend): string[] {
  const types = {
    tcp: `map ${setName(frontend, 'tcp')} { type inet_service : ${addressType(frontend.address.family)}; }`,
    udp: `set ${setName(frontend, 'udp')} { type inet_service; flags interval; }`,
  };
  return PROTOCOLS.flatMap((protocol) =>
    frontend.ports[protocol].length === 0 ? [] : [`  ${types[protocol]}`],
  );
}

function timeouts({ frontends, udpEntrySeconds: seconds }: CaptureInput): string[] {
  const udp = having(frontends, 'udp');
  const families = ([4, 6] as const).filter((family) => udp.some(({ address }) => address.family === family));
  return families.flatMap((family) =>
    timeoutText(`udp-${family}`, 'udp', family, { unreplied: seconds, replied: seconds }),
  );
}

function steerRules(frontend: CapturedFrontend, { plan, workers }: CaptureInput): string[] {
  const { family } = frontend.address;
  const dnat = `dnat ${ipWord(family)} to`;
  const zero = zeroAddress(frontend, plan).text;
  const to = {
    tcp: `${daddr(frontend)} ${dnat} tcp dport map @${setName(frontend, 'tcp')} : ${plan.port}`,
    udp: `${match(frontend, 'udp')} ${dnat} ${family === 4 ? zero : `[${zero}]`} : ${udpPort(family, plan.port, workers)}`,
  };
  return PROTOCOLS.flatMap((protocol) => (frontend.ports[protocol].length === 0 ? [] : [to[protocol]]));
}

/** A client stays with one worker, whatever its port. */
function udpPort(family: 4 | 6, port: number, workers: number): string {
  if (workers <= 1) return String(port);
  const ports = Array.from({ length: workers }, (_, worker) => `${worker} : ${port + worker}`);
  return `jhash ${ipWord(family)} saddr mod ${workers} seed 0x0 map { ${ports.join(', ')} }`;
}

function guardRules({ frontends, plan }: CaptureInput): string[] {
  const direct = 'ct direction original ct status & dnat == 0';
  const tcp = having(frontends, 'tcp');
  return [
    // What conntrack cannot place (out of the window, say) is not translated. The frontend's own port has no socket, and
    // would answer with a reset, which ends a flow that could go on.
    ...tcp.map((frontend) => `${match(frontend, 'tcp')} ct state invalid drop`),
    ...(tcp.length === 0 ? [] : [`tcp dport ${plan.port} ${direct} reject with tcp reset`]),
    ...frontends
      .filter(isCaptured)
      .map(
        (frontend) =>
          `${ipWord(frontend.address.family)} daddr ${privatePrefix(frontend, plan)} ${direct} reject`,
      ),
  ];
}

function routingOf(frontend: CapturedFrontend, plan: CapturePlan, tag: number): RoutingEntry[] {
  const { family } = frontend.address;
  if (!isCaptured(frontend)) return [];
  const route = anyIpRoute(family, privatePrefix(frontend, plan), tag);
  // A socket can be bound to any address of a local IPv4 route; IPv6 wants the address itself.
  if (family === 4 || frontend.ports.udp.length === 0) return [route];
  return [route, loopbackAddress(6, zeroAddress(frontend, plan).text, tag)];
}

/** By TCP port, the text of `captureAddress`, without a parsed address for each of 65,535. */
function privateAddresses(frontend: CapturedFrontend, plan: CapturePlan): Elements {
  const { family, bytes, text } = zeroAddress(frontend, plan);
  const prefix = bytes.slice(0, 2).join('.');
  const elements = new Map<string, string>();
  for (const port of portsOf(frontend.ports.tcp)) {
    const address = family === 4 ? `${prefix}.${port >> 8}.${port & 0xff}` : `${text}${port.toString(16)}`;
    elements.set(String(port), address);
  }
  return elements;
}

function intervals(ports: PortSet): Elements {
  return new Map(ports.map(({ first, last }) => [first === last ? `${first}` : `${first}-${last}`, '']));
}

/** The name of a frontend's map of TCP ports, or set of UDP ports, in the table. */
function setName({ name, address }: CapturedFrontend, protocol: Protocol): string {
  return `${protocol}${address.family}-${name}`;
}

function match(frontend: CapturedFrontend, protocol: Protocol): string {
  return `${daddr(frontend)} ${protocol} dport @${setName(frontend, protocol)}`;
}

function daddr({ address }: CapturedFrontend): string {
  return `${ipWord(address.family)} daddr ${addressText(address)}`;
}

function having(frontends: readonly CapturedFrontend[], protocol: Protocol): readonly CapturedFrontend[] {
  return frontends.filter(({ ports }) => ports[protocol].length > 0);
}

function isCaptured({ ports }: CapturedFrontend): boolean {
  return ports.tcp.length + ports.udp.length > 0;
}

/** The address that stands for the frontend's UDP socket. */
function zeroAddress({ address, slot }: CapturedFrontend, plan: CapturePlan): IpAddress {
  return captureAddress(address.family, slot, 0, plan.block);
}

/** All private addresses of a frontend: an IPv4 slot is a /16, an IPv6 one a /80. */
function privatePrefix(frontend: CapturedFrontend, plan: CapturePlan): string {
  return `${zeroAddress(frontend, plan).text}/${frontend.address.family === 4 ? 16 : 80}`;
}
