import { formatDuration } from '../model/duration.js';
import type { Candidate, DrainStatus, ExplainedAccess, Explanation, FlowView, OtherRule } from './views.js';

/*
 * How commands and the dashboard show numbers, times and decisions, in the same words. The browser loads it: what it
 * imports is served too (admin/dashboard.ts).
 */

const SI_STEPS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/**
 * Three significant digits with a decimal multiplier: 999, 1.23k, 45.6M. For what is counted and for bits; 1 k is 1000.
 */
export function si(value: number): string {
  let scaled = value;
  let step = 0;
  // 999.5 would be rounded to 1000.
  while (Math.abs(scaled) >= 999.5 && step < SI_STEPS.length - 1) {
    scaled /= 1000;
    step++;
  }
  if (step === 0) return String(Math.round(scaled * 10) / 10);
  const digits = Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)}${SI_STEPS[step] ?? ''}`;
}

/** `812B`, `1.23kB`, `45.6MB`; 1 kB is 1000 bytes. */
export function bytes(value: number): string {
  return `${si(value)}B`;
}

/** For sentences: `12.3 Mbit/s`. */
export function bitRate(bitsPerSecond: number): string {
  const [, digits = '0', unit = ''] = /^(-?[\d.]+)(.*)$/.exec(si(bitsPerSecond)) ?? [];
  return `${digits} ${unit}bit/s`;
}

/** Whole numbers with their thousands set apart: `65,536`. */
export function count(value: number): string {
  return String(Math.round(value)).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** `12 stay, 3 move, 0 are reset`; `false` is left out. */
export function counts(values: Readonly<Record<string, number | false>>): string {
  return listed(Object.entries(values).map(([what, value]) => value !== false && `${count(value)} ${what}`));
}

/** The texts that there are, joined. */
export function listed(texts: readonly (string | undefined | false)[], separator = ', '): string {
  return texts.filter((text) => typeof text === 'string').join(separator);
}

/** The first items, and how many more there are. */
export function firstOf(items: readonly string[], most: number): readonly string[] {
  const more = items.length - most;
  return more > 0 ? [...items.slice(0, most), `and ${count(more)} more`] : items;
}

/** `1 flow`, `2 flows`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** A share, 0 to 1: `33.3 %`. */
export function share(ratio: number): string {
  return `${(ratio * 100).toFixed(1)} %`;
}

/** How long, in the two largest units: `42ms`, `7s`, `3m12s`, `2h05m`, `4d03h`. Less than nothing is `0s`. */
export function span(ms: number): string {
  if (ms < 1000) return ms < 1 ? '0s' : `${Math.round(Math.min(ms, 999))}ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${two(seconds % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

/** `3m12s ago`, or `never` where there is no such time. */
export function ago(atMs: number | undefined, nowMs: number): string {
  return atMs === undefined ? 'never' : `${span(nowMs - atMs)} ago`;
}

/** Time of day, with the date where it is not today's. */
export function clock(atMs: number, nowMs = Date.now()): string {
  const at = new Date(atMs);
  const time = at.toTimeString().slice(0, 8);
  if (at.toDateString() === new Date(nowMs).toDateString()) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}

/** `192.0.2.7:40000`, `[2001:db8::7]:40000`. */
export function clientOf({ source, sourcePort }: FlowView['tuple']): string {
  return endpointText(source, sourcePort);
}

export function frontendOf({ destination, destinationPort }: FlowView['tuple']): string {
  return endpointText(destination, destinationPort);
}

/** `tcp 192.0.2.7:40000 -> 192.0.2.1:443`. */
export function tupleText(tuple: FlowView['tuple']): string {
  return `${tuple.protocol} ${clientOf(tuple)} -> ${frontendOf(tuple)}`;
}

function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** A drain in one line: `nvas/nva-1 draining: 12 flows left of 300, ...`. */
export function drainSummary(status: DrainStatus, nowMs: number): string {
  const { phase, deadlineAtMs } = status;
  const name = `${status.pool}/${status.backendName}`;
  if (phase === 'done') return `${name} drained: ${drainLeft(status)}`;
  const deadline = deadlineAtMs > nowMs ? `deadline in ${span(deadlineAtMs - nowMs)}` : 'past its deadline';
  return `${name} ${phase === 'ending' ? 'ending flows' : 'draining'}: ${drainLeft(status)}, ${deadline}`;
}

/** The flows that a drain has left. */
export function drainLeft({ phase, flows, flowsAtStart }: DrainStatus): string {
  const left = flows.tcp + flows.udp;
  if (phase !== 'done') return `${plural(left, 'flow')} left of ${flowsAtStart}`;
  return left === 0 ? 'no flow is left' : `${plural(left, 'flow')} left alone`;
}

/** What a drain has done and will do, by what it is about. */
export function drainFacts(status: DrainStatus, nowMs: number) {
  const { flows, flowsAtStart, startedAtMs, deadlineAtMs, then, spreadMs } = status;
  const when = deadlineAtMs > nowMs ? `in ${span(deadlineAtMs - nowMs)}; then` : 'passed;';
  const left = then === 'leave' ? 'stay' : `end as their rule says, over ${span(spreadMs)}`;
  return {
    flows: `${flows.tcp} TCP, ${flows.udp} UDP; ${flowsAtStart} at the start, ${ago(startedAtMs, nowMs)}`,
    finish: finishText(status, nowMs),
    deadline: `${when} flows that are left ${left}`,
    'last new': ago(status.lastNewFlowAtMs, nowMs),
  };
}

function finishText({ predictedFinishAtMs: endMs, phase, deadlineAtMs, then }: DrainStatus, nowMs: number) {
  if (phase === 'ending') return 'flows are being ended now';
  if (endMs === undefined) return 'no prediction yet: no flow has finished so far';
  const by = `in about ${span(endMs - nowMs)} by themselves`;
  if (endMs <= deadlineAtMs) return by;
  return then === 'reset'
    ? `${by}, which is past the deadline: some will be ended`
    : `${by}, past the deadline`;
}

/** Texts of a label, each on lines of its own; `undefined` and `false` are left out. */
export type Texts = string | undefined | false | readonly (string | undefined | false)[];

/** Labels that have texts, with these. */
export function textRows(
  rows: Readonly<Record<string, Texts>>,
): readonly (readonly [string, readonly string[]])[] {
  return Object.entries(rows)
    .map(([label, texts]) => [label, [texts].flat().filter((text) => typeof text === 'string')] as const)
    .filter(([, texts]) => texts.length > 0);
}

/** Why a flow is with its backend. */
export const REASONS: Readonly<Record<FlowView['reason'], string>> = {
  hash: 'placed by its hash',
  retry: 'placed with another backend: the first could not be reached or was full',
  rebalanced: 'moved there by the flow policy',
  'fail-open': 'placed while no backend was eligible (fail-open)',
  pinned: 'pinned: its hash would now choose another, but it stays',
};

/** Why a backend gets no new flows, or not this one. */
export const EXCLUSIONS: Readonly<Record<NonNullable<Candidate['skipped']>, string>> = {
  'probe-down': 'its probe is down',
  'probe-unknown': 'its probe has no verdict yet',
  'admin-down': 'switched down by the operator',
  draining: 'draining',
  'weight-zero': 'weight 0 takes no new flows',
  standby: 'a better priority group serves',
  excluded: 'excluded for this flow (could not be reached, or at its cap)',
};

export function flowTexts(flow: FlowView, nowMs: number): Texts {
  return [
    `${flow.state}, with ${flow.backendId} at ${flow.backendEndpoint}`,
    REASONS[flow.reason],
    `opened ${span(nowMs - flow.openedAtMs)} ago at revision ${flow.epoch}, idle ${span(flow.idleMs)}`,
    `to the backend ${bytes(flow.bytesToBackend)} in ${plural(flow.packetsToBackend, 'packet')},`,
    `to the client ${bytes(flow.bytesToClient)} in ${plural(flow.packetsToClient, 'packet')}`,
    flow.excluded.length > 0 && `excluded when placed: ${flow.excluded.join(', ')}`,
  ];
}

/** What led to a decision, by label: up to what is hashed, from the hash to the backend, and what holds for the flow then. */
export function explanationRows(explanation: Explanation) {
  const { rule, access, key, wayBack, revision, configDigest } = explanation;
  return {
    rule: {
      [rule === undefined ? 'Rules' : 'Rule']: ruleTexts(explanation),
      Access: access && ACCESS[access.because](access.block ?? ''),
      'Hash input': key && `${key.distribution}, ${orderText(key)}`,
    },
    hash: {
      Hash:
        key &&
        `${key.algorithm}, seed ${key.seed}: 0x${key.hash.toString(16).padStart(8, '0')} = ${key.hash}`,
      Slot: slotTexts(explanation),
      'Return path': wayBack && returnTexts(wayBack),
    },
    behaviour: {
      ...behaviourRows(explanation),
      State: `revision ${revision}, config ${configDigest.slice(0, 12)}`,
    },
  } satisfies Readonly<Record<string, Readonly<Record<string, Texts>>>>;
}

/** Rules listed when none fits; the rest is only counted. */
const MISFITS_SHOWN = 20;

function ruleTexts({ rule, otherRules, endpoint, kernelMode }: Explanation): Texts {
  const others = otherRules.map(({ name, why }) => `"${name}": ${NOT_THIS_RULE[why]}`);
  if (rule === undefined) {
    return others.length === 0 ? 'none configured' : firstOf(others, MISFITS_SHOWN);
  }
  const kind = rule.haPorts ? `HA ports, listening on ${rule.ports}` : `ports ${rule.ports}`;
  const probe = rule.probe === undefined ? 'no probe' : `probe "${rule.probe}"`;
  const offset = endpoint?.floatingIp === true ? 0 : (endpoint?.portOffset ?? 0);
  return [
    `"${rule.name}" (${kind})`,
    `frontend "${rule.frontend}" ${rule.frontendAddress} -> pool "${rule.backendPool}", ${probe}`,
    ...others.map((other) => `not ${other}`),
    endpoint?.floatingIp === true &&
      `floating IP: ${kernelMode === undefined ? "dialled at the backend's alias for" : 'the backend has the address of'} the frontend`,
    endpoint !== undefined && offset !== 0 && `port ${endpoint.port - offset} becomes ${endpoint.port}`,
  ];
}

const NOT_THIS_RULE: Readonly<Record<OtherRule['why'], string>> = {
  'exact-address-wins': 'its frontend is a wildcard, an exact address wins',
  'named-port-wins': 'it is an HA-ports rule, a rule that names the port wins',
  'earlier-rule-wins': 'it comes later in the configuration',
  'other-protocol': 'other protocol',
  'other-address': 'other frontend address',
  'other-port': 'does not listen on this port',
};

const ACCESS: Readonly<Record<ExplainedAccess['because'], (block: string) => string>> = {
  'no-lists': () => 'admitted: no allow or deny list',
  'not-denied': () => 'admitted: not on the deny list, and there is no allow list',
  allow: (block) => `admitted by allow ${block}`,
  deny: (block) => `denied by deny ${block}`,
  'not-allowed': () => 'denied: not on the allow list',
};

type Key = NonNullable<Explanation['key']>;

function orderText({ symmetric, destinationFirst }: Key): string {
  const first = destinationFirst ? 'destination' : 'source';
  return symmetric ? `symmetric, ${first} endpoint first (the lower one)` : 'not symmetric';
}

function slotTexts({ key, table, result }: Explanation): Texts {
  if (key === undefined) return undefined;
  if (table === undefined) return 'no table: no backend is eligible';
  const { algorithm, hash } = key;
  const slot = algorithm === 'xxh32' ? `${hash} mod ${table.size}` : `${hash} * ${table.size} / 2^32`;
  return [
    `${slot} = ${table.slot}, owned by ${table.owner}`,
    result.kind === 'picked' &&
      result.skipped > 0 &&
      `which is excluded: ${nextTry(key, result.skipped)}, slot ${result.slot} is ${result.backendId}'s`,
    table.perPacket && 'each datagram by itself: this is the first, each next starts a slot later',
  ];
}

function nextTry({ algorithm }: Key, skipped: number): string {
  return algorithm === 'jhash' ? `hashed again with seed + ${skipped}` : `${plural(skipped, 'slot')} on`;
}

function returnTexts({ tuple, sameBy, hashedTo }: NonNullable<Explanation['wayBack']>): Texts {
  const alone = hashedTo === undefined ? 'no rule covers it' : `its own hash leads to ${hashedTo}`;
  const why = {
    hash: 'the same hash, so the same backend, whichever direction comes first',
    flow: `the same backend while the kernel knows the flow; after that ${alone}`,
    nothing: `SYMMETRY IS NOT GUARANTEED: ${alone}`,
  }[sameBy];
  return [tuple, why];
}

/** A candidate's state, and whether it was chosen or why not. `probe`: the rule's. */
export function candidateTexts(candidate: Candidate, probe: string | undefined) {
  const { effectiveWeight, configuredWeight, slots, skipped } = candidate;
  const configured = effectiveWeight === configuredWeight ? '' : ` (configured ${configuredWeight})`;
  const taken = skipped === undefined ? 'eligible, owns other slots' : `skipped: ${EXCLUSIONS[skipped]}`;
  const keeps = candidate.valid ? '' : '; does not keep existing flows (see flow policy)';
  return {
    facts: [
      probe === undefined ? 'no probe' : `probe ${candidate.health}`,
      `admin ${candidate.adminState}`,
      `weight ${effectiveWeight}${configured}`,
      `priority ${candidate.priority}`,
      slots === 0 ? 'no slots' : `${slots} slots (${share(candidate.share)})`,
    ],
    verdict: `${candidate.chosen ? 'chosen' : taken}${keeps}`,
  };
}

function behaviourRows({ timeouts, behaviour, protocol, kernelMode }: Explanation) {
  if (behaviour === undefined) return {};
  const { tcpReset, flowPolicy, allDown, connectAttempts } = behaviour;
  const policy = Object.entries(flowPolicy).map(([trigger, actions]) => `${trigger} ${actions[protocol]}`);
  return {
    Timeouts: timeouts.map(({ name, valueMs, origin }) => {
      const attempts = name === 'connect attempt' ? `, ${connectAttempts} attempts at most` : '';
      return `${name} ${formatDuration(valueMs)} (${origin})${attempts}`;
    }),
    'Idle end':
      protocol === 'tcp' && (kernelMode === undefined ? IDLE_END : KERNEL_IDLE_END)[Number(tcpReset)],
    'Flow policy': `${protocol}: ${policy.join(', ')}`,
    'All down': allDown,
  };
}

const IDLE_END = ['FIN to both ends, no RST', 'RST to both ends'];

/** Conntrack tells neither end that a flow is over: the end that sends again learns it. */
const KERNEL_IDLE_END = ['forgotten, no RST', 'forgotten; RST to the end that sends again'];
