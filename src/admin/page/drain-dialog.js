import { html, useState } from './htm-preact.js';
import { backendPath } from './api.js';
import { count } from './format.js';
import { Dialog } from './dialog.js';
import { drainText } from './drain-progress.js';
import { serverNow } from './server-time.js';

/** Asks for the deadline and what comes then. `onDone` gets a sentence for the announcer. */
export function DrainDialog({ api, backend, onDone, onClose }) {
  const [request, setRequest] = useState({ deadline: '10m', then: 'reset', spread: '10s', force: false });
  const [state, setState] = useState({ busy: false });
  const set = (part) => setRequest({ ...request, ...part });
  const refused = state.error?.code === 'LB_CONFLICT' || request.force;

  async function submit() {
    setState({ busy: true });
    try {
      await api.call('POST', backendPath(backend, 'drain'), request);
      onDone(`Drain of ${backend.name} has started`);
      return true;
    } catch (error) {
      setState({ busy: false, error });
      return false;
    }
  }

  return html`<${Dialog}
    title=${`Drain ${backend.name} of pool ${backend.pool}?`}
    confirm="Drain"
    onSubmit=${submit}
    onClose=${onClose}
    ...${state}
  >
    <p>
      ${`It gets no new flows from now on. The ${count(backend.traffic.flowsActive)} flows that it has may finish until the deadline.`}
    </p>
    <label>
      Deadline (30s, 10m, 2h)
      <input
        name="deadline"
        required
        autocomplete="off"
        pattern="[0-9]+(ms|s|m|h|d)"
        value=${request.deadline}
        onInput=${(event) => set({ deadline: event.currentTarget.value })}
      />
    </label>
    <fieldset>
      <legend>Flows that are left at the deadline</legend>
      ${[
        ['reset', 'are ended, as the rule’s flow policy says'],
        ['leave', 'stay; only new flows go elsewhere'],
      ].map(
        ([value, text]) =>
          html`<label class="choice" key=${value}>
            <input
              type="radio"
              name="then"
              value=${value}
              checked=${request.then === value}
              onChange=${() => set({ then: value })}
            />
            ${text}
          </label>`,
      )}
    </fieldset>
    <label>
      Ends are spread over
      <input
        name="spread"
        required
        autocomplete="off"
        disabled=${request.then === 'leave'}
        pattern="[0-9]+(ms|s|m|h|d)"
        value=${request.spread}
        onInput=${(event) => set({ spread: event.currentTarget.value })}
      />
    </label>
    ${
      refused &&
      html`<label class="choice">
        <input
          type="checkbox"
          checked=${request.force}
          onChange=${(event) => set({ force: event.currentTarget.checked })}
        />
        Drain all the same
      </label>`
    }
  <//>`;
}

/** Asks before a drain is cancelled. */
export function CancelDrainDialog({ api, backend, onDone, onClose }) {
  const [state, setState] = useState({ busy: false });

  async function submit() {
    setState({ busy: true });
    try {
      await api.call('DELETE', backendPath(backend, 'drain'));
      onDone(`Drain of ${backend.name} is cancelled`);
      return true;
    } catch (error) {
      setState({ busy: false, error });
      return false;
    }
  }

  return html`<${Dialog}
    title=${`Cancel the drain of ${backend.name}?`}
    confirm="Cancel the drain"
    onSubmit=${submit}
    onClose=${onClose}
    ...${state}
  >
    <p>It gets new flows again, if its probe and its admin state allow it.</p>
    ${backend.drain !== undefined && html`<p>Now: ${drainText(backend.drain, serverNow())}</p>`}
  <//>`;
}
