// The answer of /v1/explain in words. Pure.
import { backendLabel, clock, count, duration, endpoint } from './format.js';

const REASONS = {
  hash: 'its hash chose it',
  retry: 'its hash chose another, which could not be reached or was at its cap',
  rebalanced: 'the flow policy moved it there',
  'fail-open': 'nobody was eligible and the rule fails open',
  pinned: 'its hash would now choose another, but flows stay where they are',
};

/** Why a flow is where it is. */
export function reasonText(reason) {
  return REASONS[reason] ?? reason;
}

const DENIED = {
  deny: (block) => `the deny entry ${block}`,
  'not-allowed': () => 'no allow entry covers it',
};

/** One or two sentences: where the flow goes, or why nowhere. */
export function sentenceOf(explanation) {
  const { flow, tuple, result } = explanation;
  if (flow === undefined) return `${tuple} ${decisionText(explanation)}`;
  const name = backendLabel(candidateName(explanation, flow.backendId), flow.backendId);
  const live = `${tuple} is live on ${name}: ${reasonText(flow.reason)}.`;
  const same = result.kind === 'picked' && result.backendId === flow.backendId;
  return same ? live : `${live} A new flow with this tuple ${decisionText(explanation)}`;
}

/** What becomes of a new flow, as the rest of a sentence. */
function decisionText({ result, rule, access, table, endpoint: dialled, candidates }) {
  switch (result.kind) {
    case 'picked': {
      const name = backendLabel(
        candidates.find((one) => one.id === result.backendId)?.name,
        result.backendId,
      );
      const where = dialled === undefined ? '' : `, dialled at ${dialled.text}`;
      const how =
        result.reason === 'hash'
          ? `slot ${count(result.slot)} of ${count(table?.size)} belongs to it`
          : reasonText(result.reason);
      return `goes to ${name}${where}: ${how} (rule ${rule?.name}).`;
    }
    case 'denied': {
      const why = DENIED[access?.because]?.(access.block) ?? 'its access list';
      return `is refused: frontend ${rule?.frontend} does not admit the source (${why}).`;
    }
    case 'none': {
      const why =
        result.cause === 'no-eligible' ? 'no backend of the pool is eligible' : 'every backend is left out';
      return `goes nowhere: ${why}, and rule ${rule?.name} says ${result.action}.`;
    }
    default:
      return `goes nowhere: no rule covers it.`;
  }
}

function candidateName({ candidates }, id) {
  return candidates.find((candidate) => candidate.id === id)?.name;
}

/** Names of the nodes of the picture that the flow passes. */
export function routeOf(explanation) {
  const { rule, result, flow } = explanation;
  if (rule === undefined) return [];
  const backend = flow?.backendId ?? (result.kind === 'picked' ? result.backendId : undefined);
  const nodes = [`frontend:${rule.frontend}`, `rule:${rule.name}`, `pool:${rule.backendPool}`];
  return backend === undefined ? nodes : [...nodes, `backend:${backend}`];
}

/** The facts of the decision, as pairs. */
export function factsOf({ rule, key, table, result, timeouts, behaviour, revision, otherRules }) {
  const facts = [];
  if (rule !== undefined) {
    facts.push([
      'Rule',
      `${rule.name}: ${rule.frontend} (${rule.frontendAddress}) ${rule.haPorts ? 'HA ports' : rule.ports} → pool ${rule.backendPool}`,
    ]);
  }
  if (key !== undefined) {
    facts.push([
      'Distribution',
      `${key.distribution}${key.symmetric ? ', symmetric' : ''}${key.destinationFirst ? ' (destination first)' : ''}`,
    ]);
    facts.push(['Hash', `xxh32(${key.hex}, seed ${key.seed}) = ${key.hash}`]);
  }
  if (table !== undefined) {
    facts.push(['Slot', `${key.hash} mod ${table.size} = ${table.slot}, owned by ${table.owner}`]);
    if (table.servingPriority !== undefined) facts.push(['Serving priority', String(table.servingPriority)]);
    if (table.failOpen)
      facts.push(['Fail open', 'nobody is eligible; all but those switched down share the table']);
    if (table.perPacket) facts.push(['Per packet', 'each further datagram starts one slot later']);
  }
  if (result.kind === 'picked' && result.skipped > 0) facts.push(['Slots skipped', count(result.skipped)]);
  for (const timeout of timeouts)
    facts.push([`Timeout: ${timeout.name}`, `${duration(timeout.valueMs)} (${timeout.origin})`]);
  if (behaviour !== undefined) facts.push(['All down', behaviour.allDown]);
  for (const other of otherRules) facts.push([`Not rule ${other.name}`, other.why.replaceAll('-', ' ')]);
  facts.push(['Revision', count(revision)]);
  return facts;
}

/** The live flow, as pairs. */
export function flowFacts(flow, nowMs) {
  const { tuple } = flow;
  return [
    [
      'Flow',
      `${tuple.protocol} ${endpoint(tuple.source, tuple.sourcePort)} → ${endpoint(tuple.destination, tuple.destinationPort)}`,
    ],
    ['Backend', `${flow.backendId}, dialled at ${flow.backendEndpoint}`],
    ['Placed', `${reasonText(flow.reason)}, at revision ${count(flow.epoch)}`],
    ['State', flow.state],
    [
      'Open for',
      `${duration(nowMs - flow.openedAtMs)} (since ${clock(flow.openedAtMs, nowMs)}), idle for ${duration(flow.idleMs)}`,
    ],
  ];
}
