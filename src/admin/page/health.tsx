// How backends are, in shapes and words.

import type { BackendView, ProbeView } from '../../api/views.js';
import { EXCLUSIONS, clock, count, span } from '../../api/words.js';
import { h } from 'htm/preact/standalone';

const SHAPES = {
  serving: <circle cx={8} cy={8} r={6} />,
  draining: <path d="M2 3h12L8 14z" />,
  standby: <path d="M4 3h3v10H4zM9 3h3v10H9z" />,
  waiting: <path d="M8 1l7 7-7 7-7-7z" />,
  down: <path d="M2 2h12v12H2z" />,
  good: <path d="M1 9l2-2 3 3 7-8 2 2-9 10z" />,
  bad: <path d="M8 1l7 13H1z" />,
};

export function Shape({ of }: { of: keyof typeof SHAPES }) {
  return (
    <svg class={`shape ${of}`} viewBox="0 0 16 16" width={12} height={12} aria-hidden="true">
      {SHAPES[of]}
    </svg>
  );
}

/** What a backend is, in one word; each has its own shape and its own colour. */
export function conditionOf({ serving, drain, exclusion }: BackendView) {
  if (serving) return 'serving';
  if (drain !== undefined || exclusion === 'draining') return 'draining';
  if (exclusion === 'standby') return 'standby';
  return exclusion === 'probe-unknown' || exclusion === 'weight-zero' ? 'waiting' : 'down';
}

/** Why a backend gets no new flows; undefined where it does. */
export function exclusionText({ serving, exclusion }: BackendView): string | undefined {
  if (serving) return undefined;
  return exclusion === undefined ? 'not known why' : EXCLUSIONS[exclusion];
}

/** "serving", or why not. */
export function conditionText(backend: BackendView): string {
  const exclusion = exclusionText(backend);
  return exclusion === undefined ? 'serving' : `not serving: ${exclusion}`;
}

export function Condition({ backend }: { backend: BackendView }) {
  const condition = conditionOf(backend);
  return (
    <span class={`condition ${condition}`}>
      <Shape of={condition} />
      {condition}
    </span>
  );
}

/** Changes that the history of a probe shows. */
const CHANGES_SHOWN = 6;

/** What the probes found, with the evidence of each change, newest first. */
export function HealthHistory({ backend }: { backend: BackendView }) {
  return (
    <div class="history">
      <p>
        <Shape of={conditionOf(backend)} /> {backend.name} is {conditionText(backend)}.
      </p>
      {backend.probes.length === 0 && <p>No probe: it counts as up.</p>}
      {backend.probes.map((probe) => (
        <section key={probe.probe}>
          <h4>
            Probe {probe.probe}: {probe.state}
          </h4>
          <p>{probeText(probe)}</p>
          {probe.history.length === 0 && <p>It has never changed.</p>}
          <ol>
            {[...probe.history]
              .reverse()
              .slice(0, CHANGES_SHOWN)
              .map(({ atMs, from, to, evidence }) => (
                <li key={atMs}>
                  <time>{clock(atMs)}</time> {from} → <strong>{to}</strong>: {evidence}
                </li>
              ))}
          </ol>
          {probe.history.length > CHANGES_SHOWN && (
            <p>{count(probe.history.length - CHANGES_SHOWN)} older changes.</p>
          )}
        </section>
      ))}
    </div>
  );
}

function probeText({ last, consecutiveSuccesses, consecutiveFailures, heldForMs }: ProbeView): string {
  const verdict =
    last === undefined
      ? 'No verdict yet.'
      : `Last: ${last.verdict}, ${last.evidence}, in ${Math.round(last.durationMs)} ms.`;
  const row = `${count(consecutiveSuccesses)} good and ${count(consecutiveFailures)} bad in a row.`;
  const held = heldForMs === undefined ? '' : `Flaps: held down for another ${span(heldForMs)}.`;
  return `${verdict} ${row} ${held}`;
}
