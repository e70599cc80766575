import { html, useEffect, useState } from './htm-preact.js';
import { query } from './api.js';
import { bytes, percent } from './format.js';
import { exclusionText } from './health.js';
import { factsOf, flowFacts, routeOf, sentenceOf } from './explanation.js';
import { serverNow } from './server-time.js';

/**
 * "Where does this flow go?" `asked` is a tuple `{protocol, source, destination}` that another part of the page wants
 * explained; `onRoute` gets the nodes of the picture on the flow's way.
 */
export function Explain({ api, asked, onRoute }) {
  const [tuple, setTuple] = useState({ protocol: 'tcp', source: '', destination: '' });
  const [answer, setAnswer] = useState({});
  const set = (part) => setTuple({ ...tuple, ...part });

  async function ask(wanted) {
    setAnswer({ ...answer, busy: true });
    try {
      const explanation = await api.call('GET', `v1/explain${query(wanted)}`);
      setAnswer({ explanation });
      onRoute(routeOf(explanation));
    } catch (error) {
      setAnswer({ error });
      onRoute([]);
    }
  }

  useEffect(() => {
    if (asked === undefined) return;
    setTuple(asked);
    void ask(asked);
  }, [asked]);

  return html`<div>
    <form
      class="fields"
      onSubmit=${(event) => {
        event.preventDefault();
        void ask({
          protocol: tuple.protocol,
          source: tuple.source.trim(),
          destination: tuple.destination.trim(),
        });
      }}
    >
      <label>
        Protocol
        <select value=${tuple.protocol} onChange=${(event) => set({ protocol: event.currentTarget.value })}>
          <option value="tcp">TCP</option>
          <option value="udp">UDP</option>
        </select>
      </label>
      <${Endpoint}
        label="Source (client)"
        name="source"
        example="192.0.2.7:40000"
        value=${tuple.source}
        onSet=${set}
      />
      <${Endpoint}
        label="Destination (frontend)"
        name="destination"
        example="127.0.0.1:8000"
        value=${tuple.destination}
        onSet=${set}
      />
      <button type="submit" class="primary" disabled=${answer.busy === true}>Explain</button>
    </form>
    <div class="answer" aria-live="polite">
      ${answer.error !== undefined && html`<p class="failure">${`${answer.error.message} (${answer.error.code})`}</p>`}
      ${answer.explanation !== undefined && html`<p class="sentence">${sentenceOf(answer.explanation)}</p>`}
      ${
        answer.explanation === undefined &&
        answer.error === undefined &&
        html`<p class="hint">
          The same decision as the data plane’s, with every step to it. Nothing is sent.
        </p>`
      }
    </div>
    ${answer.explanation !== undefined && html`<${Details} explanation=${answer.explanation} />`}
  </div>`;
}

function Endpoint({ label, name, example, value, onSet }) {
  return html`<label>
    ${label}
    <input
      name=${name}
      required
      autocomplete="off"
      spellcheck="false"
      placeholder=${example}
      value=${value}
      onInput=${(event) => onSet({ [name]: event.currentTarget.value })}
    />
  </label>`;
}

function Details({ explanation }) {
  const { flow, key, candidates } = explanation;
  return html`<div class="details">
    ${
      flow !== undefined &&
      html`<section>
        <h3>The live flow</h3>
        <${Facts}
          pairs=${[...flowFacts(flow, serverNow()), ['Bytes', `→ ${bytes(flow.bytesToBackend)}, ← ${bytes(flow.bytesToClient)}`]]}
        />
      </section>`
    }
    <section>
      <h3>How it was decided</h3>
      <${Facts} pairs=${factsOf(explanation)} />
    </section>
    ${
      key !== undefined &&
      html`<section>
        <h3>Fields that are hashed</h3>
        <${Facts} pairs=${key.fields.map(({ name, value, hex }) => [name, `${value} (${hex})`])} />
      </section>`
    }
    ${
      candidates.length > 0 &&
      html`<section>
        <h3>Candidates</h3>
        <ul class="candidates">
          ${candidates.map(
            (one) =>
              html`<li key=${one.id} class=${one.chosen ? 'chosen' : ''}>
                <strong>${one.name}</strong>
                ${` ${one.address}, share ${percent(one.share)}, weight ${one.effectiveWeight}, probe ${one.health}, admin ${one.adminState}`}
                <em>${candidateText(one)}</em>
              </li>`,
          )}
        </ul>
      </section>`
    }
  </div>`;
}

function candidateText({ chosen, skipped }) {
  if (chosen) return 'chosen';
  return skipped === undefined
    ? 'in the running, but not in the slot'
    : `left out: ${exclusionText(skipped)}`;
}

function Facts({ pairs }) {
  return html`<dl class="facts-list">
    ${pairs.map(
      ([name, value]) =>
        html`<div key=${name}>
          <dt>${name}</dt>
          <dd>${value}</dd>
        </div>`,
    )}
  </dl>`;
}
