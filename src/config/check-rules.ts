import { FLOW_TRIGGERS } from '../model/rule.js';
import type { BoundRule } from './bind-rules.js';
import type { Draft, PlaneDraft } from './draft.js';
import { flowPolicyOf } from './flow-policy.js';
import { error, note, warning, type Issue } from './finding.js';

/** What hangs together inside one rule, and what of it turns out otherwise than it reads. */
export function ruleIssues({ plane }: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  return rules.flatMap((rule) => [
    ...strayOptions(rule),
    ...perPacketIssues(rule),
    ...rebalanceNotes(plane, rule),
    ...(plane.kind === 'userspace' ? dropNotes(rule) : []),
  ]);
}

function strayOptions({ path, input, protocols }: BoundRule): Issue[] {
  const stray = (protocol: 'tcp' | 'udp', key: readonly string[]): Issue[] =>
    protocols.includes(protocol)
      ? []
      : [
          warning(
            'LB_NO_EFFECT',
            [...path, ...key],
            `"${key.join('.')}" has no effect on a ${protocols.join()} rule`,
            {
              atKey: true,
            },
          ),
        ];
  return [
    ...(input.tcp === undefined ? [] : stray('tcp', ['tcp'])),
    ...(input.tcpReset === undefined ? [] : stray('tcp', ['tcpReset'])),
    ...(input.idleTimeout?.tcp === undefined ? [] : stray('tcp', ['idleTimeout', 'tcp'])),
    ...(input.udp === undefined ? [] : stray('udp', ['udp'])),
    ...(input.idleTimeout?.udp === undefined ? [] : stray('udp', ['idleTimeout', 'udp'])),
  ];
}

function perPacketIssues({ path, input }: BoundRule): Issue[] {
  if (input.udp?.perPacket !== true) return [];
  const issues: Issue[] = [];
  const expected = input.udp.expectedResponses;
  if (expected !== undefined && expected > 0) {
    issues.push(
      error(
        'LB_CONFLICT',
        [...path, 'udp', 'expectedResponses'],
        'perPacket carries no replies to wait for',
        {
          found: String(expected),
          expected: '0, or no perPacket',
        },
      ),
    );
  }
  if (input.symmetric) {
    issues.push(
      warning(
        'LB_NO_EFFECT',
        [...path, 'symmetric'],
        '"symmetric" has no effect on datagrams under perPacket',
      ),
    );
  }
  if (input.distribution !== undefined) {
    issues.push(
      warning(
        'LB_NO_EFFECT',
        [...path, 'distribution'],
        '"distribution" has no effect on datagrams under perPacket',
      ),
    );
  }
  return issues;
}

function rebalanceNotes(plane: PlaneDraft, rule: BoundRule): Issue[] {
  const { path, protocols } = rule;
  const policy = flowPolicyOf(rule);
  const triggers = FLOW_TRIGGERS.filter((trigger) => policy[trigger].tcp === 'rebalance');
  if (!protocols.includes('tcp') || triggers.length === 0) return [];
  const what = `For TCP, rebalance on ${triggers.join(', ')}`;
  if (plane.kind === 'kernel' && plane.options?.mode !== 'nat') {
    const reason =
      'It resets a connection that it does not know, unless it shares its sessions with the others';
    return [
      note(
        'LB_REBALANCE_MOVES',
        [...path, 'flowPolicy'],
        `${what} sends the next packets to another backend`,
        {
          reason,
        },
      ),
    ];
  }
  const message = `${what} means reset`;
  const reason =
    plane.kind === 'kernel'
      ? 'Another backend does not know a connection that conntrack translated for this one'
      : 'A spliced TCP stream cannot be moved to another backend';
  return [note('LB_REBALANCE_RESETS', [...path, 'flowPolicy'], message, { reason })];
}

function dropNotes({ path, input, protocols }: BoundRule): Issue[] {
  if (!protocols.includes('tcp') || input.allDown !== 'drop') return [];
  const message = 'For TCP, drop means accepted, never answered, and closed at the embryonic timeout';
  const reason = 'The kernel completes the handshake before haports sees the connection';
  return [note('LB_DROP_ACCEPTS', [...path, 'allDown'], message, { reason })];
}
