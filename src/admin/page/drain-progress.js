import { html } from './htm-preact.js';
import { clock, count, duration, endpoint } from './format.js';
import { serverNow } from './server-time.js';

/** Flows that are left, when they are likely to be gone, and what keeps them. */
export function DrainProgress({ drain }) {
  const left = drain.flows.tcp + drain.flows.udp;
  const most = Math.max(drain.flowsAtStart, left, 1);
  const text = drainText(drain, serverNow());
  return html`<div class="drain">
    <p>
      <progress max=${most} value=${most - left} aria-label=${`Drain of ${drain.backendName}`}></progress>
      <strong>${drain.phase === 'done' ? 'Drained' : 'Draining'}</strong>${`: ${text}`}
    </p>
    ${
      drain.longest.length > 0 &&
      html`<details>
        <summary>Oldest flows</summary>
        <ul>
          ${drain.longest.map(
            ({ id, tuple, openedAtMs, idleMs }) =>
              html`<li key=${id}>
                ${`${tuple.protocol} ${endpoint(tuple.source, tuple.sourcePort)} → ${endpoint(tuple.destination, tuple.destinationPort)}, open for ${duration(serverNow() - openedAtMs)}, idle for ${duration(idleMs)}`}
              </li>`,
          )}
        </ul>
      </details>`
    }
  </div>`;
}

/** All of it as a sentence or two. */
export function drainText(drain, nowMs) {
  const left = drain.flows.tcp + drain.flows.udp;
  const last =
    drain.lastNewFlowAtMs === undefined
      ? 'It has had no new flow'
      : `Last new flow ${clock(drain.lastNewFlowAtMs, nowMs)}`;
  if (drain.phase === 'done') {
    const rest = left === 0 ? 'no flow is left' : `${count(left)} flows are left alone`;
    return `${rest}. It gets no new flows until the drain is cancelled. ${last}.`;
  }
  const flows = `${count(left)} of ${count(drain.flowsAtStart)} flows left (TCP ${count(drain.flows.tcp)}, UDP ${count(drain.flows.udp)})`;
  if (drain.phase === 'ending') {
    return `${flows}. The deadline has passed; they are ended over ${duration(drain.spreadMs)}.`;
  }
  const finish =
    drain.predictedFinishAtMs === undefined
      ? 'too few have finished to predict the end'
      : `likely done in ${duration(drain.predictedFinishAtMs - nowMs)} (${clock(drain.predictedFinishAtMs, nowMs)})`;
  const then = drain.then === 'reset' ? 'then what is left is ended' : 'then what is left stays';
  return `${flows}, ${finish}. Deadline in ${duration(drain.deadlineAtMs - nowMs)} (${clock(drain.deadlineAtMs, nowMs)}), ${then}. ${last}.`;
}
