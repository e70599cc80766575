import { html, useState } from './htm-preact.js';
import { backendPath } from './api.js';
import { Dialog } from './dialog.js';

const CHOICES = [
  ['none', 'none: follow the probe'],
  ['up', 'up: take new flows whatever the probe says'],
  ['down', 'down: take no new flows; the flow policy decides about those that it has'],
  ['configured', 'configured: what the configuration says, again'],
];

/** Sets a backend's admin state. */
export function AdminStateDialog({ api, backend, onDone, onClose }) {
  const [adminState, setAdminState] = useState(backend.adminState);
  const [state, setState] = useState({ busy: false });

  async function submit() {
    setState({ busy: true });
    try {
      await api.call('PUT', backendPath(backend, 'admin-state'), { adminState });
      onDone(
        `Admin state of ${backend.name} is now ${adminState === 'configured' ? 'as configured' : adminState}`,
      );
      return true;
    } catch (error) {
      setState({ busy: false, error });
      return false;
    }
  }

  return html`<${Dialog}
    title=${`Admin state of ${backend.name} in pool ${backend.pool}`}
    confirm="Set it"
    onSubmit=${submit}
    onClose=${onClose}
    ...${state}
  >
    <p>
      ${`Now ${backend.adminState}, ${backend.adminStateOrigin === 'operator' ? 'set by an operator' : 'as configured'}. A change acts on the next packet.`}
    </p>
    <fieldset>
      <legend>Admin state</legend>
      ${CHOICES.map(
        ([value, text]) =>
          html`<label class="choice" key=${value}>
            <input
              type="radio"
              name="adminState"
              value=${value}
              checked=${adminState === value}
              onChange=${() => setAdminState(value)}
            />
            ${text}
          </label>`,
      )}
    </fieldset>
  <//>`;
}
