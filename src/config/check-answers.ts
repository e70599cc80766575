import { answersFromOf } from './answers-from.js';
import type { BoundRule } from './bind-rules.js';
import type { Draft } from './draft.js';
import { error, note, type Issue } from './finding.js';

/** Rules that let backends answer from other ports, and what stands in the way of that. */
export function answerIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  if (draft.plane.kind === 'kernel') return [];
  return rules
    .filter((rule) => rule.protocols.includes('udp') && answersFromOf(rule) === 'address')
    .flatMap((rule) => [...countedReplies(rule), ...portsOfOtherWorkers(draft, rule)]);
}

function countedReplies({ path, input }: BoundRule): Issue[] {
  const { perPacket, expectedResponses } = input.udp ?? {};
  if (perPacket !== true && expectedResponses === undefined) return [];
  const key = perPacket === true ? 'perPacket' : 'expectedResponses';
  const reason = 'A flow that a backend begins has no request whose replies could be counted or left out';
  return [
    error('LB_CONFLICT', [...path, 'udp', 'answersFrom'], `Answers from other ports do not go with ${key}`, {
      found: '"address"',
      expected: `"endpoint", or no ${key}`,
      reason,
    }),
  ];
}

function portsOfOtherWorkers({ root }: Draft, { path }: BoundRule): Issue[] {
  const { workers, capture } = root.dataPlane;
  if (workers < 2 || capture?.udp === 'redirect') return [];
  const message =
    `With ${workers} data workers, answers from another port pass only where one worker has both ports ` +
    `(about one in ${workers})`;
  const reason = 'Each UDP port belongs to one worker. One worker, or capture, has them all in one place';
  return [note('LB_ANSWERS_BY_WORKER', [...path, 'udp', 'answersFrom'], message, { reason })];
}
