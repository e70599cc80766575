import { ipAddress, type IpAddress } from '../model/address.js';
import type { DoctorMachine, KnockAnswer } from './doctor-machine.js';

/*
 * Ways that packets take only for a moment, for one TCP connection each: what is put into the routing of this machine is
 * taken out again, and what a crash has left is taken out first.
 */

/** Ahead of the rules of an instance (680), and behind the table of local addresses (0). */
const PREFERENCE = '679';
/** As nft/routing-entry.ts has it. */
const ROUTE_PROTOCOL = '104';
const FIRST_TABLE = 679_000;
/** Beside the range that the kernel takes ports from. */
const FIRST_PORT = 61_000;

/** RFC 5737 and RFC 3849: nobody's addresses, which a backend sends to its default gateway. */
const STRANGERS = { 4: '192.0.2.254', 6: '2001:db8::254' } as const;

/**
 * A connection to the frontend's address, sent to one backend by its source port: answers are those of that backend with
 * that address. `index` tells tries apart that run at a time.
 */
export async function knockThrough(
  machine: DoctorMachine,
  options: {
    readonly frontend: IpAddress;
    readonly backend: IpAddress;
    readonly port: number;
    readonly index: number;
  },
): Promise<KnockAnswer> {
  const { frontend, backend, port, index } = options;
  const fromPort = FIRST_PORT + index;
  const table = String(FIRST_TABLE + index);
  const family = `-${frontend.family}`;
  const prefix = `${frontend.text}/${frontend.family === 4 ? 32 : 128}`;
  const gateway = backend.text.split('%', 1)[0] ?? '';
  const route = [prefix, 'via', gateway, 'table', table, 'proto', ROUTE_PROTOCOL];
  const rule = [
    ...['pref', PREFERENCE, 'to', prefix, 'ipproto', 'tcp', 'sport', String(fromPort)],
    ...['lookup', table, 'protocol', ROUTE_PROTOCOL],
  ];
  const placed = await machine.run('ip', [family, 'route', 'replace', ...route]);
  if (placed.exitCode !== 0) return placed.stderr.trim().split('\n')[0] ?? 'no route';
  try {
    const ruled = await machine.run('ip', [family, 'rule', 'add', ...rule]);
    if (ruled.exitCode !== 0) return ruled.stderr.trim().split('\n')[0] ?? 'no rule';
    return await machine.knock({ to: frontend, port, fromPort });
  } finally {
    await machine.run('ip', [family, 'rule', 'del', ...rule]);
    await machine.run('ip', [family, 'route', 'del', ...route]);
  }
}

/** A connection from an address of nobody: answers come back only where the backend routes them through this machine. */
export async function knockAsStranger(
  machine: DoctorMachine,
  { backend, port }: { readonly backend: IpAddress; readonly port: number },
): Promise<KnockAnswer> {
  return machine.knock({ to: backend, port, fromAddress: strangerOf(backend.family) });
}

function strangerOf(family: 4 | 6): IpAddress {
  return ipAddress(STRANGERS[family]);
}

/** Gives this machine that address for as long as the work takes. */
export async function asStranger<T>(
  machine: DoctorMachine,
  family: 4 | 6,
  work: () => Promise<T>,
): Promise<T> {
  const address = strangerOf(family);
  const prefix = `${address.text}/${address.family === 4 ? 32 : 128}`;
  const args = [prefix, 'dev', 'lo', ...(address.family === 6 ? ['nodad'] : [])];
  await machine.run('ip', [`-${address.family}`, 'address', 'add', ...args]);
  try {
    return await work();
  } finally {
    await machine.run('ip', [`-${address.family}`, 'address', 'del', prefix, 'dev', 'lo']);
  }
}

/** Takes out what a doctor has left that did not come to its end. */
export async function removeLeftovers(machine: DoctorMachine): Promise<void> {
  for (const family of ['-4', '-6']) {
    const deletion = [family, 'rule', 'del', 'pref', PREFERENCE, 'protocol', ROUTE_PROTOCOL];
    // One rule goes at a time.
    let isGone = true;
    for (let left = 1001; isGone && left > 0; left -= 1) {
      isGone = (await machine.run('ip', deletion)).exitCode === 0;
    }
  }
}
