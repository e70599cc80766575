import { errorCode } from '../../../model/errors.js';
import type { Files } from '../../../runtime/files.js';
import type { TableUse } from '../../data-plane.js';

const FOLDER = '/proc/sys/net/netfilter';

/** Entries of conntrack, everybody's, and how many there may be; undefined: it is not there. Never rejects. */
export async function conntrackUse(files: Files): Promise<TableUse | undefined> {
  const [used, limit] = await Promise.all([
    readNumber(files, 'nf_conntrack_count'),
    readNumber(files, 'nf_conntrack_max'),
  ]);
  return used === undefined || limit === undefined ? undefined : { used, limit };
}

/** What flows cannot tell of themselves for want of a sysctl, a sentence each. Never rejects. */
export async function missingAccounts(files: Files): Promise<readonly string[]> {
  const wanted = [
    ['nf_conntrack_acct', 'Bytes and packets of flows are not counted'],
    ['nf_conntrack_events', 'Flows are seen when they are looked for, not when they come and go'],
    ['nf_conntrack_timestamp', 'Flows older than this process seem to begin with it'],
  ] as const;
  const missing = await Promise.all(
    wanted.map(async ([name, effect]) => {
      const value = await readNumber(files, name);
      return value === undefined || value > 0 ? [] : [`${effect}: net.netfilter.${name} is 0, must be 1`];
    }),
  );
  return missing.flat();
}

async function readNumber(files: Files, name: string): Promise<number | undefined> {
  try {
    const value = Number((await files.readText(`${FOLDER}/${name}`)).trim());
    return Number.isFinite(value) ? value : undefined;
  } catch (error) {
    // Conntrack is a module that may not be loaded yet.
    if (errorCode(error) !== undefined) return undefined;
    throw error;
  }
}
