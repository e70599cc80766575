import { html, useState } from './htm-preact.js';
import { Dialog } from './dialog.js';

/** Asks for the bearer token. It is kept for this tab only. */
export function TokenDialog({ refused, onToken }) {
  const [token, setToken] = useState('');

  return html`<${Dialog}
    title="Token needed"
    confirm="Go on"
    required
    onSubmit=${() => Promise.resolve(token.trim() !== '')}
    onClose=${() => onToken(token.trim())}
  >
    <p>
      ${refused ? 'The token was not accepted. ' : ''}The admin API wants the token from "admin.token" of the
      configuration. It is kept until this tab is closed.
    </p>
    <label>
      Token
      <input
        type="password"
        autocomplete="off"
        required
        value=${token}
        onInput=${(event) => setToken(event.currentTarget.value)}
      />
    </label>
  <//>`;
}
