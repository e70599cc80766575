import type { IpAddress } from '../model/address.js';
import { captureAddress } from '../model/capture-address.js';
import type { CapturePlan } from '../model/capture.js';
import { portSetSize, portsOf, type PortSet } from '../model/port-set.js';
import {
  CAPTURE_MARK,
  captureSetNames,
  needsPrivateAddresses,
  slotPrefix,
  tcpPorts,
  udpPorts,
  type CapturedFrontend,
  type CaptureInput,
} from './capture-input.js';
import { captureStructure } from './capture-structure.js';
import type { Elements, KernelSetup } from './kernel-setup.js';
import {
  anyIpRoute,
  everythingLocalRoute,
  instanceTag,
  loopbackAddress,
  markRule,
  tableOf,
  type RoutingEntry,
} from './routing-entry.js';

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
  if (plan.tcp === 'tproxy') return intervals(frontend.tcpPorts);
  const { address, slot } = frontend;
  const elements = new Map<string, string>();
  const textOf = addressText(captureAddress(address.family, slot, 0, plan.block));
  for (const port of portsOf(frontend.tcpPorts)) elements.set(String(port), textOf(port));
  return elements;
}

/** The text of `captureAddress` for a port, without a parsed address for each of 65,535. */
function addressText(zero: IpAddress): (port: number) => string {
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
    if (plan.tcp === 'tproxy' && tcpPorts(frontend)) {
      add(everythingLocalRoute(family, tag));
      add(markRule(family, `${hex(CAPTURE_MARK.value)}/${hex(CAPTURE_MARK.mask)}`, tag));
    }
  }
  return [...entries.values()];
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
