import { html, useEffect, useRef, useState } from './htm-preact.js';
import { query } from './api.js';
import { bits, bytes, count, duration, endpoint } from './format.js';
import { reasonText } from './explanation.js';
import { repeat } from './live-data.js';
import { serverNow } from './server-time.js';

const EVERY_MS = 2000;
const STATES = ['embryonic', 'established', 'half-closed', 'blackholed'];
const REASONS = ['hash', 'retry', 'rebalanced', 'fail-open', 'pinned'];
const NO_FILTER = { rule: '', backend: '', protocol: '', source: '', state: '', reason: '' };

/** Live flows, filtered and sorted by the server: there may be a million of them. */
export function Flows({ api, rules, pools, onExplain }) {
  const [filter, setFilter] = useState(NO_FILTER);
  const [sort, setSort] = useState('age');
  const [paused, setPaused] = useState(false);
  const [list, setList] = useState({});
  const wanted = useRef();
  wanted.current = { ...filter, source: filter.source.trim(), sort, limit: '100' };

  async function load() {
    if (api.locked || document.hidden) return;
    const asked = wanted.current;
    try {
      const answer = await api.call('GET', `v1/flows${query(asked)}`);
      if (asked === wanted.current || sameQuery(asked, wanted.current)) setList(answer);
    } catch (error) {
      setList((last) => ({ ...last, error }));
    }
  }

  useEffect(() => {
    if (paused) return undefined;
    const polling = repeat(load, EVERY_MS);
    return () => polling.stop();
  }, [paused, sort, filter]);

  const backends = pools.flatMap((pool) =>
    pool.backends.map((backend) => [backend.id, `${pool.name}/${backend.name}`]),
  );
  const set = (part) => setFilter({ ...filter, ...part });
  return html`<div>
    <form class="fields" onSubmit=${(event) => (event.preventDefault(), void load())}>
      <${Choice}
        label="Rule"
        name="rule"
        options=${rules.map(({ name }) => [name, name])}
        filter=${filter}
        onSet=${set}
      />
      <${Choice} label="Backend" name="backend" options=${backends} filter=${filter} onSet=${set} />
      <${Choice}
        label="Protocol"
        name="protocol"
        options=${[
          ['tcp', 'TCP'],
          ['udp', 'UDP'],
        ]}
        filter=${filter}
        onSet=${set}
      />
      <${Choice}
        label="State"
        name="state"
        options=${STATES.map((one) => [one, one])}
        filter=${filter}
        onSet=${set}
      />
      <${Choice}
        label="Reason"
        name="reason"
        options=${REASONS.map((one) => [one, one])}
        filter=${filter}
        onSet=${set}
      />
      <label>
        Client address
        <input
          name="source"
          autocomplete="off"
          spellcheck="false"
          placeholder="any"
          value=${filter.source}
          onChange=${(event) => set({ source: event.currentTarget.value })}
        />
      </label>
      <label>
        Sort by
        <select value=${sort} onChange=${(event) => setSort(event.currentTarget.value)}>
          ${['age', 'idle', 'bytes', 'rate', 'none'].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select>
      </label>
      <button type="button" aria-pressed=${paused} onClick=${() => setPaused(!paused)}>
        ${paused ? 'Paused: go on' : 'Pause'}
      </button>
    </form>
    <p class="hint">
      ${
        list.error === undefined
          ? `${count(list.flows?.length)} shown of ${count(list.matched)} that match`
          : html`<span class="failure" role="alert">${`${list.error.message} (${list.error.code})`}</span>`
      }
    </p>
    <div class="scroll flows" role="region" aria-label="Live flows" tabindex="0">
      <${FlowTable}
        flows=${list.flows ?? []}
        sort=${sort}
        onSort=${setSort}
        pools=${pools}
        onExplain=${onExplain}
      />
      ${list.flows?.length === 0 && html`<p class="empty">No flow matches.</p>`}
    </div>
  </div>`;
}

function sameQuery(one, other) {
  return Object.keys(other).every((key) => one[key] === other[key]);
}

function Choice({ label, name, options, filter, onSet }) {
  return html`<label>
    ${label}
    <select
      name=${name}
      value=${filter[name]}
      onChange=${(event) => onSet({ [name]: event.currentTarget.value })}
    >
      <option value="">any</option>
      ${options.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}
    </select>
  </label>`;
}

/** Heading and, where the server can sort by it, the sort. */
const COLUMNS = [
  ['Flow'],
  ['Backend'],
  ['State'],
  ['Reason'],
  ['Age', 'age'],
  ['Idle', 'idle'],
  ['Bytes', 'bytes'],
  ['Rate', 'rate'],
  [''],
];

function FlowTable({ flows, sort, onSort, pools, onExplain }) {
  const names = new Map(pools.flatMap((pool) => pool.backends.map((backend) => [backend.id, backend.name])));
  return html`<table class="cards" role="table" aria-label="Live flows">
    <thead>
      <tr>
        ${COLUMNS.map(
          ([name, key]) =>
            html`<th key=${name} scope="col" aria-sort=${key === sort ? 'descending' : undefined}>
              ${
                key === undefined
                  ? name || html`<span class="hidden">Explain</span>`
                  : html`<button type="button" class="plain" onClick=${() => onSort(key)}>
                      ${name}${key === sort ? ' ▾' : ''}
                    </button>`
              }
            </th>`,
        )}
      </tr>
    </thead>
    <tbody>
      ${flows.map((flow) => html`<${Flow} key=${flow.id} flow=${flow} name=${names.get(flow.backendId)} onExplain=${onExplain} />`)}
    </tbody>
  </table>`;
}

function Flow({ flow, name, onExplain }) {
  const { tuple } = flow;
  const source = endpoint(tuple.source, tuple.sourcePort);
  const destination = endpoint(tuple.destination, tuple.destinationPort);
  return html`<tr>
    <th scope="row">${`${tuple.protocol} ${source}`}<small>${`→ ${destination} (${flow.rule})`}</small></th>
    <td data-label="Backend">${name ?? flow.backendId}<small>${flow.backendEndpoint}</small></td>
    <td data-label="State">${flow.state}</td>
    <td data-label="Reason" title=${reasonText(flow.reason)}>${flow.reason}</td>
    <td data-label="Age">${duration(serverNow() - flow.openedAtMs)}</td>
    <td data-label="Idle">${duration(flow.idleMs)}</td>
    <td data-label="Bytes">
      ${`→ ${bytes(flow.bytesToBackend)}`}<small>${`← ${bytes(flow.bytesToClient)}`}</small>
    </td>
    <td data-label="Rate" title="Known while the list is sorted by rate">${bits(flow.bitsPerSecond)}</td>
    <td class="actions">
      <button
        type="button"
        aria-label=${`Explain ${tuple.protocol} ${source}`}
        onClick=${() => onExplain({ protocol: tuple.protocol, source, destination })}
      >
        Explain
      </button>
    </td>
  </tr>`;
}
