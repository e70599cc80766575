import type { Protocol } from '../../../model/five-tuple.js';

/** A flow as packets have written it down: FLOW_SET_PREFIX of floating-flows.ts. */
export interface FloatingFlow {
  /** Text of an address. */
  readonly client: string;
  readonly clientPort: number;
  /** Of the frontend that the set is of. */
  readonly frontendPort: number;
  readonly protocol: Protocol;
  /** Of its backend. */
  readonly mark: number;
  /** From the client to the backend: answers do not come this way. */
  readonly packets: number;
  readonly bytes: number;
  /** Until it is forgotten if no packet comes. */
  readonly expiresMs: number;
  /** What that starts from with each packet: its idle time is the difference. */
  readonly timeoutMs: number;
}

/** `10.1.0.2 . tcp . 40000 . 443 . 0x00a10001 timeout 4m expires 3m59s990ms counter packets 3 bytes 180` */
const FLOW =
  /([0-9a-fA-F.:]+) \. (tcp|udp) \. (\d+) \. (\d+) \. (0x[0-9a-f]+)((?: (?:timeout|expires) \w+| counter packets \d+ bytes \d+)*)/g;
const TIME = /(\d+)(ms|[dhms])/g;
const UNIT_MS = new Map([
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
]);

/** What `nft list set inet haports flows-<frontend>` says. Elements that it does not understand are left out. */
export function floatingFlows(listing: string): readonly FloatingFlow[] {
  return Array.from(listing.matchAll(FLOW), (match): FloatingFlow => {
    const [, client = '', protocol, clientPort, frontendPort, mark, rest = ''] = match;
    const counted = / packets (\d+) bytes (\d+)/.exec(rest);
    return {
      client,
      clientPort: Number(clientPort),
      frontendPort: Number(frontendPort),
      protocol: protocol === 'udp' ? 'udp' : 'tcp',
      mark: Number(mark),
      packets: Number(counted?.[1] ?? 0),
      bytes: Number(counted?.[2] ?? 0),
      expiresMs: durationMs(/ expires (\w+)/.exec(rest)?.[1]),
      timeoutMs: durationMs(/ timeout (\w+)/.exec(rest)?.[1]),
    };
  });
}

/** `3m59s996ms`. */
function durationMs(text = ''): number {
  let sum = 0;
  for (const [, number, unit = ''] of text.matchAll(TIME)) sum += Number(number) * (UNIT_MS.get(unit) ?? 0);
  return sum;
}
