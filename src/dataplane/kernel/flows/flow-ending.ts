import type { FlowEndReason } from '../../../model/flow.js';
import type { ConntrackEntry } from '../../../nft/conntrack-entry.js';

/** IANA numbers. */
export const TCP = 6;
export const UDP = 17;

type Ending = Pick<ConntrackEntry, 'protocol' | 'state' | 'unreplied'>;

/** Why a flow went that no program deleted, from how conntrack saw it last. */
export function naturalEnd({ protocol, state, unreplied }: Ending): FlowEndReason {
  if (protocol !== TCP) return 'idle';
  switch (state) {
    case 'SYN_SENT':
    case 'SYN_SENT2':
      return unreplied ? 'connect-failed' : 'embryonic-timeout';
    case 'SYN_RECV':
      return 'embryonic-timeout';
    case 'CLOSE':
      // A backend that refuses has not answered, as conntrack sees it.
      return unreplied ? 'connect-failed' : 'reset';
    case 'ESTABLISHED':
    case 'FIN_WAIT':
    case 'CLOSE_WAIT':
      return 'idle';
    default:
      return 'closed';
  }
}

/** What a connection that failed says of its backend, as the userspace plane words it; undefined: nothing. */
export function failureEvidence(entry: Ending): string | undefined {
  if (naturalEnd(entry) !== 'connect-failed') return undefined;
  return entry.state === 'CLOSE' ? 'ECONNREFUSED' : 'connect timeout';
}
