import { errorCode } from '../../../model/errors.js';
import type { Files } from '../../../runtime/files.js';
import type { TableUse } from '../../data-plane.js';

const FOLDER = '/proc/sys/net/netfilter';

/** What a socket of conntrack may hold before events are lost: it does not get the buffer that conntrack -b asks for. */
const BUFFER = '/proc/sys/net/core/rmem_default';

/** An event takes 1,280 bytes of it, as measured: room for 6,500, a third of a second of 20,000 new flows a second. */
const WANTED_BUFFER_BYTES = 8_388_608;
const EVENT_BYTES = 1280;

/** Entries of conntrack, everybody's, and how many there may be; undefined: it is not there. Never rejects. */
export async function conntrackUse(files: Files): Promise<TableUse | undefined> {
  const [used, limit] = await Promise.all([
    readNumber(files, `${FOLDER}/nf_conntrack_count`),
    readNumber(files, `${FOLDER}/nf_conntrack_max`),
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
      const value = await readNumber(files, `${FOLDER}/${name}`);
      return value === undefined || value > 0 ? [] : [`${effect}: net.netfilter.${name} is 0, must be 1`];
    }),
  );
  const bufferBytes = await readNumber(files, BUFFER);
  return [...missing.flat(), ...bufferShortcoming(bufferBytes)];
}

function bufferShortcoming(bytes: number | undefined): string[] {
  if (bytes === undefined || bytes >= WANTED_BUFFER_BYTES) return [];
  const events = Math.floor(bytes / EVENT_BYTES);
  return [
    `Of more than ${events} flows that come or go at once some are found late, and short ones never: net.core.rmem_default is ${bytes}, should be ${WANTED_BUFFER_BYTES}`,
  ];
}

async function readNumber(files: Files, path: string): Promise<number | undefined> {
  try {
    const value = Number((await files.readText(path)).trim());
    return Number.isFinite(value) ? value : undefined;
  } catch (error) {
    // Conntrack is a module that may not be loaded yet.
    if (errorCode(error) !== undefined) return undefined;
    throw error;
  }
}
