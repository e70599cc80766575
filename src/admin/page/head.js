import { html } from './htm-preact.js';
import { bits, clock, count, duration, perSecond } from './format.js';
import { Shape } from './health.js';
import { serverNow } from './server-time.js';

/** Name, version and whether all is well. */
export function Head({ status, error, freshAtMs }) {
  const configuration = status?.configuration;
  const reload = configuration?.lastReload;
  return html`<header class="top">
    <div class="title">
      <h1>haports</h1>
      <div role="status"><${Verdict} status=${status} error=${error} freshAtMs=${freshAtMs} /></div>
    </div>
    <p class="facts">
      ${
        status === undefined
          ? ' '
          : `${status.version} · pid ${status.pid} · up ${duration(serverNow() - status.startedAtMs)} · ${workersText(status)} · ${configuration.source} (${configuration.digest.slice(0, 12)}), loaded ${clock(configuration.loadedAtMs)} · revision ${count(status.revision)}`
      }
    </p>
    ${
      reload !== undefined &&
      html`<p class=${reload.ok ? 'facts' : 'facts failure'}>
        ${`Last reload ${clock(reload.atMs)}: ${reload.ok ? 'done' : 'failed'}, ${reload.message}`}
      </p>`
    }
  </header>`;
}

function workersText({ workers, workersLost }) {
  const lost = workersLost > 0 ? `, ${count(workersLost)} lost` : '';
  if (workers === 0) return `no workers${lost}`;
  return `${workers} ${workers === 1 ? 'worker' : 'workers'}${lost}`;
}

function Verdict({ status, error, freshAtMs }) {
  if (error !== undefined) {
    const since = freshAtMs === undefined ? '' : `; what you see is from ${clock(freshAtMs)}`;
    return html`<p class="verdict bad"><${Shape} of="bad" />${error.message}${since}</p>`;
  }
  if (status === undefined) return html`<p class="verdict">…</p>`;
  if (status.problems.length === 0) {
    return html`<p class="verdict good"><${Shape} of="good" />No problems</p>`;
  }
  return html`<ul class="verdict bad" aria-label="Problems">
    ${status.problems.map((text) => html`<li key=${text}><${Shape} of="bad" />${text}</li>`)}
  </ul>`;
}

/** What the numbers of listeners count depends on how packets come in. */
function listenerTile({ listeners: { tcp, udp }, kernel }) {
  const parts = `TCP ${count(tcp)}, UDP ${count(udp)}`;
  if (kernel?.mode.startsWith('kernel')) return ['Frontends', count(Math.max(tcp, udp)), parts];
  if (kernel === undefined) return ['Listeners', count(tcp + udp), parts];
  return ['Capture sockets', count(tcp + udp), parts];
}

/** The figures of the whole process. */
export function Figures({ status }) {
  const { table, traffic, backends } = status;
  const used = ({ used, limit }) => `of ${count(limit)} (${Math.round((used / Math.max(1, limit)) * 100)} %)`;
  const tiles = [
    [
      'Backends serving',
      `${count(backends.serving)} / ${count(backends.total)}`,
      `${count(status.drains.length)} draining`,
    ],
    ['TCP flows', count(table.tcp.used), used(table.tcp)],
    ['UDP flows', count(table.udp.used), used(table.udp)],
    // The kernel plane does not count them apart.
    ...(table.embryonic.limit === 0
      ? []
      : [['Opening flows', count(table.embryonic.used), used(table.embryonic)]]),
    [
      'New flows',
      `${perSecond(traffic.newFlowsPerSecond)} /s`,
      `${count(traffic.flowsOpened)} since the start`,
    ],
    [
      'To backends',
      bits(traffic.bitsToBackendPerSecond),
      `to clients ${bits(traffic.bitsToClientPerSecond)}`,
    ],
    ['Connect failures', count(traffic.connectFailures), `${count(traffic.resets)} resets`],
    listenerTile(status),
  ];
  return html`<dl class="tiles">
    ${tiles.map(
      ([name, value, more]) =>
        html`<div key=${name}>
          <dt>${name}</dt>
          <dd>${value}<small>${more}</small></dd>
        </div>`,
    )}
  </dl>`;
}
