// The details of /v1/explain in words. Pure.

import type { BackendView, Candidate, FlowView, LiveExplanation } from '../../api/views.js';
import { clock, count, duration, tupleText } from './format.js';

export type Fact = readonly [name: string, value: string];

/** Why a flow is where it is. */
export const REASONS: Readonly<Record<FlowView['reason'], string>> = {
  hash: 'its hash chose it',
  retry: 'its hash chose another, which could not be reached or was at its cap',
  rebalanced: 'the flow policy moved it there',
  'fail-open': 'no backend was eligible and the rule fails open',
  pinned: 'its hash would now choose another, but flows stay where they are',
};

const EXCLUSIONS: Readonly<Record<NonNullable<Candidate['skipped']>, string>> = {
  'probe-down': 'its probe is down',
  'probe-unknown': 'its probe has no verdict yet',
  'admin-down': 'it is switched down',
  draining: 'it is draining',
  'weight-zero': 'its weight is 0',
  standby: 'its priority group stands by',
  excluded: 'it could not be reached or is at its cap',
};

/** Why a backend gets no new flows, as half a sentence; undefined where it does. */
export function exclusionText({
  serving,
  exclusion,
}: Pick<BackendView, 'serving' | 'exclusion'>): string | undefined {
  if (serving) return undefined;
  return exclusion === undefined ? 'not known why' : EXCLUSIONS[exclusion];
}

export function candidateText({ chosen, skipped }: Candidate): string {
  if (chosen) return 'chosen';
  return skipped === undefined ? 'eligible, but not in the slot' : `left out: ${EXCLUSIONS[skipped]}`;
}

/** Names of the nodes of the picture that the flow passes. */
export function routeOf({ rule, result, flow }: LiveExplanation): readonly string[] {
  if (rule === undefined) return [];
  const backend = flow?.backendId ?? (result.kind === 'picked' ? result.backendId : undefined);
  const nodes = [`frontend:${rule.frontend}`, `rule:${rule.name}`, `pool:${rule.backendPool}`];
  return backend === undefined ? nodes : [...nodes, `backend:${backend}`];
}

/** What led to the decision. */
export function factsOf(explanation: LiveExplanation): readonly Fact[] {
  const { rule, access, key, table, result, timeouts, behaviour, revision, otherRules } = explanation;
  const facts: Fact[] = [];
  if (rule !== undefined) {
    const ports = rule.haPorts ? 'HA ports' : rule.ports;
    facts.push([
      'Rule',
      `${rule.name}: ${rule.frontend} (${rule.frontendAddress}) ${ports} → pool ${rule.backendPool}`,
    ]);
  }
  if (access?.admitted === false) {
    facts.push(['Access', `refused: ${access.because.replaceAll('-', ' ')} ${access.block ?? ''}`]);
  }
  if (key !== undefined) {
    const order = key.destinationFirst ? ' (destination first)' : '';
    facts.push(
      ['Distribution', `${key.distribution}${key.symmetric ? ', symmetric' : ''}${order}`],
      ['Hash', `xxh32(${key.hex}, seed ${key.seed}) = ${key.hash}`],
    );
  }
  if (key !== undefined && table !== undefined) {
    facts.push(['Slot', `${key.hash} mod ${table.size} = ${table.slot}, owned by ${table.owner}`]);
    if (table.servingPriority !== undefined) facts.push(['Serving priority', String(table.servingPriority)]);
    if (table.failOpen) {
      facts.push(['Fail open', 'no backend is eligible; all but those switched down share the table']);
    }
    if (table.perPacket) facts.push(['Per packet', 'each further datagram starts one slot later']);
  }
  if (result.kind === 'picked' && result.skipped > 0) facts.push(['Slots skipped', count(result.skipped)]);
  for (const { name, valueMs, origin } of timeouts) {
    facts.push([`Timeout: ${name}`, `${duration(valueMs)} (${origin})`]);
  }
  if (behaviour !== undefined) facts.push(['All down', behaviour.allDown]);
  for (const { name, why } of otherRules) facts.push([`Not rule ${name}`, why.replaceAll('-', ' ')]);
  return [...facts, ['Revision', count(revision)]];
}

/** The live flow. */
export function flowFacts(flow: FlowView, nowMs: number): readonly Fact[] {
  const since = `${duration(nowMs - flow.openedAtMs)} (since ${clock(flow.openedAtMs, nowMs)})`;
  return [
    ['Flow', tupleText(flow.tuple)],
    ['Backend', `${flow.backendId}, dialled at ${flow.backendEndpoint}`],
    ['Placed', `${REASONS[flow.reason]}, at revision ${count(flow.epoch)}`],
    ['State', flow.state],
    ['Open for', `${since}, idle for ${duration(flow.idleMs)}`],
  ];
}
