import { html, useState } from './htm-preact.js';
import { bits, clock, count, perSecond, percent } from './format.js';
import { Condition, conditionText } from './health.js';
import { AdminStateDialog } from './admin-state-dialog.js';
import { CancelDrainDialog, DrainDialog } from './drain-dialog.js';
import { DrainProgress } from './drain-progress.js';

const DIALOGS = { drain: DrainDialog, cancel: CancelDrainDialog, admin: AdminStateDialog };
const COLUMNS = [
  'Backend',
  'Health',
  'Share of hash space and of flows',
  'Flows',
  'Traffic',
  'Weight',
  'Admin state',
  'Actions',
];

/** One table a pool, with what can be done to a backend. */
export function Backends({ api, pools, onDone }) {
  const [asked, setAsked] = useState();
  const AskedDialog = asked === undefined ? undefined : DIALOGS[asked.what];
  // What is known of it now, not what it was when the button was pressed.
  const found = pools.flatMap((pool) => pool.backends).find((backend) => backend.id === asked?.backend.id);
  return html`<div>
    ${pools.map((pool) => html`<${Pool} key=${pool.name} pool=${pool} onAsk=${setAsked} />`)}
    ${
      AskedDialog !== undefined &&
      html`<${AskedDialog}
        key=${`${asked.what} ${asked.backend.id}`}
        api=${api}
        backend=${found ?? asked.backend}
        onDone=${onDone}
        onClose=${() => setAsked(undefined)}
      />`
    }
  </div>`;
}

function Pool({ pool, onAsk }) {
  const caption = `Pool ${pool.name}: ${count(pool.serving)} of ${count(pool.backends.length)} serving, at least ${count(pool.minimumHealthy)} needed; used by ${pool.rules.join(', ') || 'no rule'}`;
  return html`<table class="cards backends" role="table">
    <caption>
      ${caption}
    </caption>
    <thead>
      <tr>
        ${COLUMNS.map((name) => html`<th key=${name} scope="col">${name}</th>`)}
      </tr>
    </thead>
    ${pool.backends.map((backend) => html`<${Backend} key=${backend.id} backend=${backend} onAsk=${onAsk} />`)}
  </table>`;
}

function Backend({ backend, onAsk }) {
  const { traffic, drain } = backend;
  return html`<tbody>
    <tr id=${`row-${backend.id}`} tabindex="-1">
      <th scope="row"><strong>${backend.name}</strong><small>${backend.address}</small></th>
      <td data-label="Health">
        <${Condition} backend=${backend} />
        <small
          >${backend.serving ? `probe ${backend.health}` : conditionText(backend).replace('not serving: ', '')}</small
        >
      </td>
      <td data-label="Shares"><${Shares} backend=${backend} /></td>
      <td data-label="Flows">
        ${count(traffic.flowsActive)}
        <small>
          ${`${perSecond(traffic.newFlowsPerSecond)} new/s, last ${backend.lastNewFlowAtMs === undefined ? 'never' : clock(backend.lastNewFlowAtMs)}`}
        </small>
      </td>
      <td data-label="Traffic">
        ${`→ ${bits(traffic.bitsToBackendPerSecond)}`}
        <small>${`← ${bits(traffic.bitsToClientPerSecond)}`}</small>
      </td>
      <td data-label="Weight">
        ${count(backend.weight)}
        <small>
          ${backend.weightOrigin === 'configured' ? `priority ${backend.priority}` : `${backend.weightOrigin}, not ${count(backend.configuredWeight)}`}
        </small>
      </td>
      <td data-label="Admin state">
        ${backend.adminState}<small
          >${backend.adminStateOrigin === 'operator' ? 'by an operator' : 'as configured'}</small
        >
      </td>
      <td data-label="Actions" class="actions">
        <button
          type="button"
          aria-label=${drain === undefined ? `Drain ${backend.name}` : `Cancel the drain of ${backend.name}`}
          onClick=${() => onAsk({ what: drain === undefined ? 'drain' : 'cancel', backend })}
        >
          ${drain === undefined ? 'Drain …' : 'Cancel drain …'}
        </button>
        <button
          type="button"
          aria-label=${`Admin state of ${backend.name}`}
          onClick=${() => onAsk({ what: 'admin', backend })}
        >
          Admin state …
        </button>
      </td>
    </tr>
    ${
      drain !== undefined &&
      html`<tr class="wide">
        <td colspan=${COLUMNS.length}><${DrainProgress} drain=${drain} /></td>
      </tr>`
    }
  </tbody>`;
}

/** What it should get beside what it gets. */
function Shares({ backend }) {
  const bars = [
    ['hash', backend.hashShare],
    ['real', backend.realShare],
  ];
  return html`<div class="shares">
    ${bars.map(
      ([name, share]) =>
        html`<div key=${name}>
          <span>${name}</span>
          <span class="bar"
            ><span class=${`fill ${name}`} style=${{ width: `${Math.min(100, share * 100)}%` }}></span
          ></span>
          <span class="number">${percent(share)}</span>
        </div>`,
    )}
  </div>`;
}
