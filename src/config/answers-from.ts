import type { AnswersFrom } from '../model/rule.js';
import type { BoundRule } from './bind-rules.js';

/**
 * What holds where a rule does not say: HA ports with `source-ip` are for protocols that need several ports, and with
 * them all that a client and its backend say to each other, from whatever port, is one matter.
 */
export function answersFromOf({ input, haPorts }: Pick<BoundRule, 'input' | 'haPorts'>): AnswersFrom {
  const { perPacket = false, expectedResponses, answersFrom } = input.udp ?? {};
  if (answersFrom !== undefined) return answersFrom;
  const isOneMatter = haPorts && input.distribution === 'source-ip';
  return isOneMatter && !perPacket && expectedResponses === undefined ? 'address' : 'endpoint';
}
