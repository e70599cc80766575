import type { IpAddress } from '../model/address.js';
import type { PortInUse } from './listening-ports.js';

/*
 * Sockets that whoever started this process has opened for it: the protocol of sd_listen_fds(3), which systemd's
 * socket units speak and any launcher can.
 */

/** SD_LISTEN_FDS_START in systemd/sd-daemon.h. */
const FIRST_DESCRIPTOR = 3;

/** A descriptor that was handed in. */
export interface HandedDescriptor {
  readonly descriptor: number;
  /** From FileDescriptorName= of the socket unit; `unknown` where there is none, as in sd_listen_fds_with_names(3). */
  readonly name: string;
}

/** One that is a TCP socket and listens. */
export interface HandedListener extends HandedDescriptor {
  readonly address: IpAddress;
  readonly port: number;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** What the environment says was handed to the process `pid`; empty where it was meant for another. Pure. */
export function handedDescriptors(env: Environment, pid: number): readonly HandedDescriptor[] {
  const count = Number(env['LISTEN_FDS'] ?? 0);
  if (!Number.isInteger(count) || count < 1 || Number(env['LISTEN_PID']) !== pid) return [];
  const names = env['LISTEN_FDNAMES']?.split(':') ?? [];
  return Array.from({ length: count }, (_, index) => ({
    descriptor: FIRST_DESCRIPTOR + index,
    name: names[index] ?? 'unknown',
  }));
}

/**
 * Those that listen on TCP. `links`: where /proc/self/fd leads, by descriptor; `ports`: what is in use on the machine.
 * Pure.
 */
export function handedListeners(
  handed: readonly HandedDescriptor[],
  links: ReadonlyMap<string, string>,
  ports: readonly PortInUse[],
): readonly HandedListener[] {
  const listening = new Map(
    ports.filter(({ protocol }) => protocol === 'tcp').map((port) => [`socket:[${port.inode}]`, port]),
  );
  return handed.flatMap((socket) => {
    const found = listening.get(links.get(String(socket.descriptor)) ?? '');
    return found === undefined ? [] : [{ ...socket, address: found.address, port: found.port }];
  });
}
