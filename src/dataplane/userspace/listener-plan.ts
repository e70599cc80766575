import { ipAddress, isWildcard, type IpAddress } from '../../model/address.js';
import { captureAddress } from '../../model/capture-address.js';
import type { CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import { portsOf, unionPorts, type PortSet } from '../../model/port-set.js';
import type { Rule } from '../../model/rule.js';
import type { ListenFailure, TcpPorts } from '../data-plane.js';
import { CapturedEnds, type CapturedEnd } from './captured-ends.js';
import type { ListenerBinding } from './listener.js';
import { tcpOwner, type OwnerOf } from './udp-owner.js';

/** Bindings by protocol and address (`udp 127.0.0.1`), then port. */
export type ListenerPlan = ReadonlyMap<string, ReadonlyMap<number, ListenerBinding>>;

export function socketGroup(protocol: Protocol, address: IpAddress): string {
  return `${protocol} ${address.text}`;
}

/** The plan's binding of a socket, or undefined if it does not want it. */
export function plannedBinding(
  plan: ListenerPlan,
  {
    protocol,
    address,
    port,
  }: { readonly protocol: Protocol; readonly address: string | IpAddress; readonly port: number },
): ListenerBinding | undefined {
  const text = typeof address === 'string' ? address : address.text;
  return plan.get(`${protocol} ${text}`)?.get(port);
}

export function isPlanned(plan: ListenerPlan, binding: ListenerBinding): boolean {
  return plannedBinding(plan, binding) !== undefined;
}

/** Which worker the plan is for, and who owns what. */
export interface PlanShare {
  readonly worker: number;
  readonly ownerOf: OwnerOf;
  /** @default 'shared' */
  readonly tcpPorts?: TcpPorts | undefined;
  /** Absent: every port has a socket of its own. */
  readonly capture?: CapturePlan;
}

const ALONE: PlanShare = { worker: 0, ownerOf: () => 0 };

/**
 * Every socket that a configuration wants of a worker: of UDP those it owns, of TCP all, or those it owns where TCP
 * ports are owned too. A rule that names a port beats an HA-ports rule on the same frontend. A wildcard frontend becomes
 * one UDP socket for each of the machine's own addresses, since a wildcard UDP socket would answer from whatever address
 * the route back suggests.
 */
export function planListeners(
  configuration: Configuration,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
  share: PlanShare = ALONE,
): ListenerPlan {
  const plan = new Map<string, Map<number, ListenerBinding>>();
  const frontends = new Map(configuration.frontends.map((frontend) => [frontend.name, frontend]));
  const ranked = configuration.rules
    .map((rule, ruleIndex) => ({ rule, ruleIndex }))
    .sort((a, b) => Number(a.rule.haPorts) - Number(b.rule.haPorts));
  const { capture } = share;
  for (const { rule, ruleIndex } of ranked) {
    const frontend = frontends.get(rule.frontend);
    if (frontend === undefined) continue;
    for (const protocol of rule.protocols) {
      if (capture !== undefined && isCaptured(protocol, capture)) continue;
      for (const address of addressesFor(frontend, protocol, ownAddresses)) {
        addRule(plan, { protocol, address, rule, ruleIndex, frontend }, share);
      }
    }
  }
  if (capture !== undefined) addCaptured(plan, configuration, capture, share.worker);
  return plan;
}

function isCaptured(protocol: Protocol, { udp }: CapturePlan): boolean {
  return protocol === 'tcp' || udp === 'redirect';
}

/** One TCP socket a family, which workers share, and one UDP socket a frontend and worker. */
function addCaptured(
  plan: Map<string, Map<number, ListenerBinding>>,
  configuration: Configuration,
  capture: CapturePlan,
  worker: number,
): void {
  const add = (address: IpAddress, port: number, end: CapturedEnd, rest: Partial<ListenerBinding>): void => {
    const binding = { ...end, ...rest, protocol: rest.captured?.protocol ?? 'tcp', address, port };
    plan.set(socketGroup(binding.protocol, address), new Map([[port, binding]]));
  };
  const ends = new CapturedEnds(configuration, 'tcp', capture);
  for (const { frontend, first } of ends.all()) {
    const address = ipAddress(frontend.address.family === 4 ? '0.0.0.0' : '::');
    if (first === undefined || plan.has(socketGroup('tcp', address))) continue;
    const isTold = worker === 0 ? {} : { reportedElsewhere: true };
    add(address, capture.port, first, { captured: { protocol: 'tcp', ends }, ...isTold });
  }
  if (!isCaptured('udp', capture)) return;
  const udp = new CapturedEnds(configuration, 'udp', capture);
  for (const ports of udp.all()) {
    const { address: frontend } = ports.frontend;
    if (ports.first === undefined) continue;
    const address = captureAddress(frontend.family, udp.slotOf(frontend), 0, capture.block);
    add(address, capture.port + worker, ports.first, { captured: { protocol: 'udp', ports } });
  }
}

/** Those failures that no other worker tells of. */
export function ownFailures(
  plan: ListenerPlan,
  failures: readonly ListenFailure[],
): readonly ListenFailure[] {
  return failures.filter((failure) => plannedBinding(plan, failure)?.reportedElsewhere !== true);
}

/** By address: the UDP ports that all workers together listen on. */
export function plannedUdpPorts(
  configuration: Configuration,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
): ReadonlyMap<string, PortSet> {
  const planned = new Map<string, PortSet>();
  const frontends = new Map(configuration.frontends.map((frontend) => [frontend.name, frontend]));
  for (const rule of configuration.rules) {
    const frontend = frontends.get(rule.frontend);
    if (frontend === undefined || !rule.protocols.includes('udp')) continue;
    for (const { text } of addressesFor(frontend, 'udp', ownAddresses)) {
      planned.set(text, unionPorts(planned.get(text) ?? [], rule.ports));
    }
  }
  return planned;
}

function addressesFor(
  frontend: Frontend,
  protocol: Protocol,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
): readonly IpAddress[] {
  const { address } = frontend;
  return protocol === 'udp' && isWildcard(address) ? ownAddresses(address.family) : [address];
}

function addRule(
  plan: Map<string, Map<number, ListenerBinding>>,
  entry: {
    readonly protocol: Protocol;
    readonly address: IpAddress;
    readonly rule: Rule;
    readonly ruleIndex: number;
    readonly frontend: Frontend;
  },
  share: PlanShare,
): void {
  const key = socketGroup(entry.protocol, entry.address);
  const group = plan.get(key) ?? new Map<number, ListenerBinding>();
  plan.set(key, group);
  const isAlone = entry.protocol === 'udp' || share.tcpPorts === 'owned';
  const ownerOf = entry.protocol === 'tcp' && isAlone ? tcpOwner(share.ownerOf) : share.ownerOf;
  for (const port of portsOf(entry.rule.ports)) {
    if (group.has(port)) continue;
    const isOwner = ownerOf(entry.address, port) === share.worker;
    if (isOwner) group.set(port, { ...entry, port });
    else if (!isAlone) group.set(port, { ...entry, port, reportedElsewhere: true });
  }
}
