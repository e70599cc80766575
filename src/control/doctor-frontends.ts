import { isWildcard, type IpAddress } from '../model/address.js';
import type { Configuration, Frontend } from '../model/configuration.js';
import {
  fine,
  ipRecords,
  note,
  problem,
  warning,
  type DoctorFinding,
  type DoctorMachine,
  type DoctorSection,
} from './doctor-machine.js';

/** How this machine would send a packet to an address; undefined: it has no route. */
export interface RouteFacts {
  /** `local`, `unicast`, and so on. */
  readonly type: string;
  readonly device?: string;
  readonly gateway?: string;
  readonly source?: string;
}

export async function routeTo(machine: DoctorMachine, address: IpAddress): Promise<RouteFacts | undefined> {
  const [family, text] = [`-${address.family}`, address.text.split('%', 1)[0] ?? ''];
  const [record] = ipRecords(await machine.run('ip', ['-j', family, 'route', 'get', text]));
  if (record === undefined) return undefined;
  const { type, dev, gateway, prefsrc } = record;
  return {
    type: typeof type === 'string' ? type : 'unicast',
    ...(typeof dev === 'string' ? { device: dev } : {}),
    ...(typeof gateway === 'string' ? { gateway } : {}),
    ...(typeof prefsrc === 'string' ? { source: prefsrc } : {}),
  };
}

/** Whether the addresses that flows come to are where the mode needs them. */
export async function examineFrontends(
  machine: DoctorMachine,
  configuration: Configuration,
): Promise<readonly DoctorSection[]> {
  if (configuration.kernel === undefined) return [];
  return Promise.all(
    configuration.frontends.map(async (frontend) => ({
      title: `Frontend ${frontend.name}, ${frontend.address.text}`,
      findings: await examineFrontend(machine, configuration, frontend),
    })),
  );
}

async function examineFrontend(
  machine: DoctorMachine,
  { kernel }: Configuration,
  { address }: Frontend,
): Promise<DoctorFinding[]> {
  if (isWildcard(address)) {
    return [
      fine(kernel?.mode === 'next-hop' ? 'Stands for destinations beyond' : 'All addresses of this machine'),
    ];
  }
  const route = await routeTo(machine, address);
  if (route?.type === 'local') return local(kernel?.mode, address);
  const prefix = address.family === 4 ? 32 : 128;
  const unreachable = `ip -${address.family} route add unreachable ${address.text}/${prefix}`;
  const guard = note(
    'While haports is not in the kernel, packets to it would be routed on, perhaps in a loop',
    unreachable,
  );
  if (route === undefined) return [fine('Not an address of this machine, and routed nowhere else')];
  if (route.gateway === undefined && route.device !== undefined)
    return [...(await onLink(machine, address, route.device)), guard];
  return [fine(`Not an address of this machine: it must be routed here by the network`), guard];
}

function local(mode: string | undefined, address: IpAddress): DoctorFinding[] {
  if (mode !== 'floating-routed') return [fine('An address of this machine')];
  return [
    problem(
      'It is an address of this machine, which keeps its packets instead of routing them to a backend',
      `ip address del ${address.text}, and have it routed here`,
    ),
  ];
}

/** On a network of this machine nobody routes it here: somebody must answer ARP for it, and not a backend. */
async function onLink(machine: DoctorMachine, address: IpAddress, device: string): Promise<DoctorFinding[]> {
  const owner = await neighbourOf(machine, address, device);
  const text = `It is in a network of ${device}, and not this machine's`;
  if (owner === undefined) {
    return [
      note(`${text}: no client there finds it`, `route it here, or let ${device} have it (floating-l2, nat)`),
    ];
  }
  return [
    warning(
      `${text}: ${owner} answers for it, past the balancer`,
      'on a backend: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2',
    ),
  ];
}

/** The MAC address that a neighbour has told; undefined: none. */
export async function neighbourOf(
  machine: DoctorMachine,
  address: IpAddress,
  device: string,
): Promise<string | undefined> {
  const text = address.text.split('%', 1)[0] ?? '';
  const args = ['-j', `-${address.family}`, 'neigh', 'show', 'to', text, 'dev', device];
  const found = ipRecords(await machine.run('ip', args)).find(({ lladdr }) => typeof lladdr === 'string');
  return found === undefined ? undefined : String(found['lladdr']);
}
