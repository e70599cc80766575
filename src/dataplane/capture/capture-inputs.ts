import { isWildcard } from '../../model/address.js';
import { captureSlots } from '../../model/capture-address.js';
import type { CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import { portSetContains, portSetOf, subtractPorts, unionPorts, type PortSet } from '../../model/port-set.js';
import type { CapturedFrontend, CaptureInput } from '../../nft/capture-input.js';
import type { PortInUse } from '../../runtime/listening-ports.js';
import type { ListenFailure } from '../data-plane.js';

export interface CaptureInputs {
  /** What is to be steered to the sockets of the data plane. */
  readonly input: CaptureInput;
  /** Ports that other sockets of this machine have, which are therefore left alone. */
  readonly failures: readonly ListenFailure[];
  /** Those sockets. */
  readonly taken: readonly PortInUse[];
}

/** The data plane forgets a flow first: so much longer does the kernel remember it. */
const UDP_MARGIN_SECONDS = 60;

/** What a configuration steers, and what of it cannot be. `inUse`: ports of other processes. Pure. */
export function captureInputs(
  configuration: Configuration,
  plan: CapturePlan,
  inUse: readonly PortInUse[],
): CaptureInputs {
  const { instance, frontends, workers } = configuration;
  const slots = captureSlots(
    frontends.map(({ address }) => address),
    plan.block,
  );
  const others = inUse.filter((port) => !isOwn(port, plan));
  const failures: ListenFailure[] = [];
  const sockets = new Set<PortInUse>();
  const wished = frontends.map((frontend): CapturedFrontend => {
    const ports = { tcp: [] as PortSet, udp: [] as PortSet };
    for (const protocol of ['tcp', 'udp'] as const) {
      if (protocol === 'udp' && plan.udp === 'bind') continue;
      const wanted = portsWanted(configuration, frontend, protocol);
      const inTheWay = others.filter((port) => isInTheWay(port, frontend, protocol, wanted));
      for (const socket of inTheWay) sockets.add(socket);
      const taken = [...new Set(inTheWay.map(({ port }) => port))].sort((a, b) => a - b);
      ports[protocol] = subtractPorts(wanted, portSetOf(...taken));
      failures.push(...taken.map((port) => failure(configuration, frontend, protocol, port)));
    }
    const { name, address } = frontend;
    return {
      name,
      address,
      tcpPorts: ports.tcp,
      udpPorts: ports.udp,
      slot: slots.get(address.text) ?? -1,
    };
  });
  return {
    input: {
      ...{ instance, plan, frontends: wished, workers: Math.max(1, workers) },
      udpEntrySeconds: udpEntrySeconds(configuration),
    },
    failures,
    taken: [...sockets],
  };
}

/** TCP sockets of the data plane itself are on a wildcard address. */
function isOwn({ protocol, address, port }: PortInUse, plan: CapturePlan): boolean {
  return protocol === 'tcp' && port === plan.port && isWildcard(address);
}

function rulesOf({ rules }: Configuration, frontend: Frontend, protocol: Protocol): Configuration['rules'] {
  return rules.filter((rule) => rule.frontend === frontend.name && rule.protocols.includes(protocol));
}

function portsWanted(configuration: Configuration, frontend: Frontend, protocol: Protocol): PortSet {
  return rulesOf(configuration, frontend, protocol).reduce<PortSet>(
    (ports, rule) => unionPorts(ports, rule.ports),
    [],
  );
}

/** A socket on `::` may take IPv4 too, which cannot be seen from outside, and mostly does. */
function isInTheWay(
  { protocol: its, address: at, port }: PortInUse,
  { address }: Frontend,
  protocol: Protocol,
  wanted: PortSet,
): boolean {
  if (its !== protocol || !portSetContains(wanted, port)) return false;
  return isWildcard(at) ? at.family === 6 || address.family === 4 : at.text === address.text;
}

/** The rule is the one that would have served the port: one that names it beats an HA-ports rule. */
function failure(
  configuration: Configuration,
  frontend: Frontend,
  protocol: Protocol,
  port: number,
): ListenFailure {
  const rules = rulesOf(configuration, frontend, protocol).filter((rule) =>
    portSetContains(rule.ports, port),
  );
  const rule = rules.find(({ haPorts }) => !haPorts) ?? rules[0];
  return {
    ...{ rule: rule?.name ?? '', protocol, port },
    ...{ address: frontend.address.text, errorCode: 'EADDRINUSE' },
  };
}

function udpEntrySeconds({ rules }: Configuration): number {
  const idleMs = rules
    .filter(({ protocols }) => protocols.includes('udp'))
    .map(({ idleTimeoutMs }) => idleTimeoutMs.udp.value);
  return Math.ceil(Math.max(0, ...idleMs) / 1000) + UDP_MARGIN_SECONDS;
}

/** Whether a configuration wants that port, captured or not. */
export function wantsPort(configuration: Configuration, { protocol, address, port }: ListenFailure): boolean {
  const frontend = configuration.frontends.find((one) => one.address.text === address);
  if (frontend === undefined) return false;
  return rulesOf(configuration, frontend, protocol).some((rule) => portSetContains(rule.ports, port));
}
