import { html, useEffect, useLayoutEffect, useRef, useState } from './htm-preact.js';
import { bits, count, perSecond } from './format.js';
import { Condition, HealthHistory, conditionOf, conditionText } from './health.js';
import { curve, linesOf, measure, thickness } from './picture-lines.js';

/** Above so many, backends are shown small. */
const MANY_BACKENDS = 24;

/** The kernel plane has no listeners: a frontend is in the kernel with all that it has rules for, or not at all. */
function listenersText({ open, wanted }, kernel) {
  if (!kernel?.mode.startsWith('kernel')) return `${count(open)} of ${count(wanted)} listeners`;
  return open === wanted ? 'in the kernel' : 'not in the kernel';
}

/** Frontends -> rules -> pools -> backends. `route`: names of nodes on the way of the flow that was asked for. */
export function Picture({ frontends, rules, pools, kernel, route }) {
  const container = useRef(null);
  const [layout, setLayout] = useState({ boxes: new Map(), stacked: false });
  const backends = pools.flatMap((pool) => pool.backends);
  const lines = linesOf({ rules, pools });
  const nodes = lines.map((line) => `${line.from}>${line.to}`).join(' ');
  useLayoutEffect(() => setLayout(measure(container.current)), [nodes]);
  useEffect(() => {
    const observer = new ResizeObserver(() => setLayout(measure(container.current)));
    observer.observe(container.current);
    return () => observer.disconnect();
  }, []);

  const onRoute = (name) => (route.includes(name) ? ' on-route' : '');
  const many = backends.length > MANY_BACKENDS;
  return html`<div class=${many ? 'picture many' : 'picture'} ref=${container}>
    <svg class="lines" aria-hidden="true">
      ${lines.map((line) => html`<${Line} key=${`${line.from}>${line.to}`} ...${line} layout=${layout} route=${route} />`)}
    </svg>
    <${Layer} title="Frontends">
      ${frontends.map(
        (frontend) =>
          html`<${Node} key=${frontend.name} name=${`frontend:${frontend.name}`} mark=${onRoute}>
            <strong>${frontend.name}</strong>
            <span>${frontend.address}</span>
            <span>${listenersText(frontend.listeners, kernel)}</span>
            <${Rates} traffic=${frontend.traffic} />
          <//>`,
      )}
    <//>
    <${Layer} title="Rules">
      ${rules.map(
        (rule) =>
          html`<${Node} key=${rule.name} name=${`rule:${rule.name}`} mark=${onRoute}>
            <strong>${rule.name}</strong>
            <span>${`${rule.protocols.join(' + ')} ${rule.haPorts ? 'HA ports' : rule.ports}`}</span>
            <span
              >${`${rule.distribution}${rule.symmetric ? ', symmetric' : ''}${rule.floatingIp ? ', floating IP' : ''}`}</span
            >
            <${Rates} traffic=${rule.traffic} />
          <//>`,
      )}
    <//>
    <${Layer} title="Pools">
      ${pools.map(
        (pool) =>
          html`<${Node} key=${pool.name} name=${`pool:${pool.name}`} mark=${onRoute}>
            <strong>${pool.name}</strong>
            <span>${`${count(pool.serving)} of ${count(pool.backends.length)} serving`}</span>
            <span
              >${pool.servingPriority === undefined ? 'nobody serves' : `priority ${pool.servingPriority} serves`}</span
            >
            <${Rates} traffic=${total(pool.backends)} />
          <//>`,
      )}
    <//>
    <${Layer} title="Backends">
      ${backends.map((backend) => html`<${BackendNode} key=${backend.id} backend=${backend} mark=${onRoute} />`)}
    <//>
  </div>`;
}

function Layer({ title, children }) {
  return html`<section class="layer">
    <h3>${title}</h3>
    <ul>
      ${children}
    </ul>
  </section>`;
}

function Node({ name, mark, children }) {
  return html`<li class=${`node${mark(name)}`} data-node=${name}>${children}</li>`;
}

function Rates({ traffic }) {
  const both = traffic.bitsToBackendPerSecond + traffic.bitsToClientPerSecond;
  return html`<span class="rates">${bits(both)} · ${perSecond(traffic.newFlowsPerSecond)} new/s</span>`;
}

function total(backends) {
  const sum = (key) => backends.reduce((soFar, backend) => soFar + backend.traffic[key], 0);
  return {
    bitsToBackendPerSecond: sum('bitsToBackendPerSecond'),
    bitsToClientPerSecond: sum('bitsToClientPerSecond'),
    newFlowsPerSecond: sum('newFlowsPerSecond'),
  };
}

/** Pointing at it or focusing it shows its history; Escape hides that; a press goes to its row in the table. */
function BackendNode({ backend, mark }) {
  const [open, setOpen] = useState(false);
  const name = `backend:${backend.id}`;
  const id = `history-${backend.id}`;
  const goToRow = () => {
    setOpen(false);
    const row = document.getElementById(`row-${backend.id}`);
    row?.scrollIntoView({ block: 'center' });
    row?.focus();
  };
  return html`<li
    class=${`node backend ${conditionOf(backend)}${mark(name)}`}
    data-node=${name}
    onMouseEnter=${() => setOpen(true)}
    onMouseLeave=${() => setOpen(false)}
    onKeyDown=${(event) => event.key === 'Escape' && setOpen(false)}
  >
    <button
      type="button"
      aria-describedby=${open ? id : undefined}
      onFocus=${() => setOpen(true)}
      onBlur=${() => setOpen(false)}
      onClick=${goToRow}
    >
      <span class="line"><strong>${backend.name}</strong><${Condition} backend=${backend} /></span>
      <span>${backend.address}</span>
      <span title=${conditionText(backend)}>${`${count(backend.traffic.flowsActive)} flows`}</span>
      <${Rates} traffic=${backend.traffic} />
    </button>
    ${
      open &&
      html`<div class="pop" role="tooltip" id=${id}><${HealthHistory} backend=${backend} limit=${6} /></div>`
    }
  </li>`;
}

function Line({ from, to, rate, broken, layout, route }) {
  const [start, end] = [layout.boxes.get(from), layout.boxes.get(to)];
  if (start === undefined || end === undefined) return null;
  const width = thickness(rate);
  const marks = [
    to.split(':')[0],
    rate > 0 && 'busy',
    broken && 'broken',
    route.includes(from) && route.includes(to) && 'on-route',
  ];
  return html`<path
    class=${marks.filter(Boolean).join(' ')}
    d=${curve(start, end, layout.stacked)}
    stroke-width=${width}
    stroke-dasharray=${broken ? `0.1 ${width * 1.6 + 3}` : undefined}
  />`;
}
