import { html, useState } from './htm-preact.js';
import { clock, count } from './format.js';
import { Shape } from './health.js';

const LEVELS = ['debug', 'info', 'warn', 'error'];

/** What happened, newest first, and whether the stream is there. */
export function Events({ events, stream, onRetry }) {
  const [least, setLeast] = useState('info');
  const shown = events.filter((event) => LEVELS.indexOf(event.level) >= LEVELS.indexOf(least));
  return html`<div>
    <div class="fields">
      <p class=${`stream ${stream.kind}`} role="status">
        <${Shape} of=${stream.kind === 'live' ? 'good' : 'bad'} />${streamText(stream)}
      </p>
      ${stream.kind === 'cut' && html`<button type="button" onClick=${onRetry}>Try now</button>`}
      <label>
        At least
        <select value=${least} onChange=${(event) => setLeast(event.currentTarget.value)}>
          ${LEVELS.map((level) => html`<option key=${level} value=${level}>${level}</option>`)}
        </select>
      </label>
    </div>
    <div class="scroll events" role="region" aria-label="Events, newest first" tabindex="0">
      <ol>
        ${shown.map(
          (event) =>
            html`<li key=${event.id} class=${event.level}>
              <time>${clock(event.atMs)}</time>
              <span class="level">${event.level}</span>
              <span><strong>${event.type}</strong> ${event.message}</span>
            </li>`,
        )}
      </ol>
      ${shown.length === 0 && html`<p class="empty">No events yet.</p>`}
    </div>
  </div>`;
}

function streamText(stream) {
  if (stream.kind === 'live') return 'Events are live';
  if (stream.kind === 'resting') return 'Events rest while the page is hidden';
  if (stream.kind === 'connecting') return 'Connecting to the events …';
  return `Event stream cut (${stream.why}); reconnecting, attempt ${count(stream.attempts)} …`;
}
