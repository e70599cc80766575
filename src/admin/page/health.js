import { html } from './htm-preact.js';
import { clock, count, duration } from './format.js';

/** What a backend is, in one word; each has its own shape and its own colour. */
export function conditionOf(backend) {
  if (backend.serving) return 'serving';
  if (backend.drain !== undefined || backend.exclusion === 'draining') return 'draining';
  if (backend.exclusion === 'standby') return 'standby';
  if (backend.exclusion === 'probe-unknown' || backend.exclusion === 'weight-zero') return 'waiting';
  return 'down';
}

const SHAPES = {
  serving: html`<circle cx="8" cy="8" r="6" />`,
  draining: html`<path d="M2 3h12L8 14z" />`,
  standby: html`<path d="M4 3h3v10H4zM9 3h3v10H9z" />`,
  waiting: html`<path d="M8 1l7 7-7 7-7-7z" />`,
  down: html`<path d="M2 2h12v12H2z" />`,
  good: html`<path d="M1 9l2-2 3 3 7-8 2 2-9 10z" />`,
  bad: html`<path d="M8 1l7 13H1z" />`,
};

export function Shape({ of }) {
  return html`<svg class=${`shape ${of}`} viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
    ${SHAPES[of]}
  </svg>`;
}

const EXCLUSIONS = {
  'probe-down': 'its probe is down',
  'probe-unknown': 'its probe has no verdict yet',
  'admin-down': 'it is switched down',
  draining: 'it is draining',
  'weight-zero': 'its weight is 0',
  standby: 'its priority group stands by',
  excluded: 'it was tried in vain or is at its cap',
};

/** Why a backend gets no new flows, as half a sentence. */
export function exclusionText(exclusion) {
  return EXCLUSIONS[exclusion] ?? exclusion;
}

/** "up (probe), serving" and why not. */
export function conditionText(backend) {
  if (backend.serving) return 'serving';
  return `not serving: ${exclusionText(backend.exclusion ?? 'not known why')}`;
}

export function Condition({ backend }) {
  const condition = conditionOf(backend);
  return html`<span class=${`condition ${condition}`}><${Shape} of=${condition} />${condition}</span>`;
}

/** What the probes found, with the evidence of each change, newest first. */
export function HealthHistory({ backend, limit }) {
  return html`<div class="history">
    <p><${Shape} of=${conditionOf(backend)} /> ${backend.name} is ${conditionText(backend)}.</p>
    ${backend.probes.length === 0 && html`<p>No probe: it counts as up.</p>`}
    ${backend.probes.map(
      (probe) =>
        html`<section key=${probe.probe}>
          <h4>Probe ${probe.probe}: ${probe.state}</h4>
          <p>
            ${
              probe.last === undefined
                ? 'No verdict yet. '
                : `Last: ${probe.last.verdict}, ${probe.last.evidence}, in ${Math.round(probe.last.durationMs)} ms. `
            }
            ${`${count(probe.consecutiveSuccesses)} good and ${count(probe.consecutiveFailures)} bad in a row. `}
            ${probe.heldForMs !== undefined && `Flaps: held down for another ${duration(probe.heldForMs)}.`}
          </p>
          ${
            probe.history.length === 0
              ? html`<p>It has never changed.</p>`
              : html`<ol>
                  ${[...probe.history]
                    .reverse()
                    .slice(0, limit)
                    .map(
                      (change) =>
                        html`<li key=${change.atMs}>
                          <time>${clock(change.atMs)}</time
                          >${` ${change.from} → `}<strong>${change.to}</strong>${`: ${change.evidence}`}
                        </li>`,
                    )}
                </ol>`
          }
          ${probe.history.length > limit && html`<p>${count(probe.history.length - limit)} older changes.</p>`}
        </section>`,
    )}
  </div>`;
}
