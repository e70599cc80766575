import type { DrainJson } from './admin-json.js';
import { formatFlows } from './flow-text.js';
import { formatAgo, formatSpan, plural } from './human.js';
import { printable } from './table.js';
import { wrapWords } from './wrap-words.js';

/** Flows that are left. */
export function flowsLeft({ flows }: DrainJson): number {
  return flows.tcp + flows.udp;
}

/** A drain in one line: `nvas/nva-1 draining: 12 flows left of 300, ...`. */
export function drainSummary(drain: DrainJson, nowMs: number): string {
  const name = `${drain.pool}/${drain.backendName}`;
  const left = flowsLeft(drain);
  if (drain.phase === 'done') {
    return left === 0
      ? `${name} drained: no flow is left`
      : `${name} drained: ${plural(left, 'flow')} left alone`;
  }
  const what = drain.phase === 'ending' ? 'ending flows' : 'draining';
  return `${name} ${what}: ${plural(left, 'flow')} left of ${drain.flowsAtStart}, ${deadlineText(drain, nowMs)}`;
}

/** A drain as it stands, for people: what is left, until when, and which flows take longest. */
export function formatDrain(
  drain: DrainJson,
  options: { readonly nowMs: number; readonly width: number },
): readonly string[] {
  const { nowMs, width } = options;
  const { tcp, udp } = drain.flows;
  const lines = [
    drainSummary(drain, nowMs),
    `  flows      ${tcp} TCP, ${udp} UDP; ${drain.flowsAtStart} at the start, ${formatAgo(drain.startedAtMs, nowMs)}`,
    `  finish     ${forecastText(drain, nowMs)}`,
    `  deadline   ${drain.deadlineAtMs > nowMs ? `in ${formatSpan(drain.deadlineAtMs - nowMs)}; then` : 'passed;'} ${thenText(drain)}`,
    `  last new   ${formatAgo(drain.lastNewFlowAtMs, nowMs)}`,
  ].flatMap((line) => wrapWords(printable(line), width, 13));
  if (drain.longest.length === 0) return lines;
  const names = new Map([[drain.backendId, `${drain.pool}/${drain.backendName}`]]);
  const table = formatFlows(drain.longest, { nowMs, width: width - 2, names });
  return [...lines, '  longest', ...table.map((line) => `  ${line}`)];
}

/** The last words on a drain that is done. */
export function drainEnd(drain: DrainJson, nowMs: number): string {
  return `${drainSummary(drain, nowMs)}, after ${formatSpan(nowMs - drain.startedAtMs)}; ${drain.pool}/${drain.backendName} gets no new flows until --cancel`;
}

function forecastText({ predictedFinishAtMs, phase, deadlineAtMs, then }: DrainJson, nowMs: number): string {
  if (phase === 'ending') return 'flows are being ended now';
  if (predictedFinishAtMs === undefined) return 'nothing to go by yet: no flow has finished so far';
  const by = `in about ${formatSpan(predictedFinishAtMs - nowMs)} by themselves`;
  if (predictedFinishAtMs <= deadlineAtMs) return by;
  return then === 'reset'
    ? `${by}, which is past the deadline: some will be ended`
    : `${by}, past the deadline`;
}

function deadlineText({ deadlineAtMs }: DrainJson, nowMs: number): string {
  return deadlineAtMs > nowMs ? `deadline in ${formatSpan(deadlineAtMs - nowMs)}` : 'past its deadline';
}

function thenText({ then, spreadMs }: DrainJson): string {
  if (then === 'leave') return 'flows that are left stay';
  return `flows that are left end as their rule says, over ${formatSpan(spreadMs)}`;
}
