import type { BackendPoolView, BackendView, FrontendView, RuleView, StatusView } from '../../api/views.js';
import { bitRate, count, si } from '../../api/words.js';
import type { Live } from './api.js';
import { Condition, HealthHistory, conditionOf, conditionText } from './health.js';
import { h, useEffect, useLayoutEffect, useRef, useState, type Child } from 'htm/preact/standalone';

/** With more than these, backends are shown small. */
const MANY_BACKENDS = 24;

/** Where the nodes are, relative to the picture, and whether layers stand below each other. */
interface Layout {
  readonly boxes: ReadonlyMap<string, DOMRect>;
  readonly stacked: boolean;
}

/** Names of the nodes that the explained flow passes. */
export type Route = readonly string[];

type NodeText = readonly [name: string, lines: readonly string[], rate: Rate];

/** What runs through a node in a second: bits in both directions, and new flows. */
interface Rate {
  readonly bits: number;
  readonly newFlows: number;
}

function rateOf(members: readonly Pick<BackendView, 'traffic'>[]): Rate {
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return {
    bits: sum(members.map(({ traffic }) => traffic.bitsToBackendPerSecond + traffic.bitsToClientPerSecond)),
    newFlows: sum(members.map(({ traffic }) => traffic.newFlowsPerSecond)),
  };
}

/** Frontends -> rules -> pools -> backends. */
export function Picture(
  props: NonNullable<Live['topology']> & { kernel: StatusView['kernel']; route: Route },
) {
  const { frontends, rules, pools, kernel, route } = props;
  const container = useRef<HTMLDivElement | null>(null);
  const [layout, setLayout] = useState<Layout>({ boxes: new Map(), stacked: false });
  const backends = pools.flatMap((pool) => pool.backends);
  const layers: readonly (readonly [title: string, kind: string, nodes: readonly NodeText[]])[] = [
    ['Frontends', 'frontend', frontends.map((one) => [one.name, frontendLines(one, kernel), rateOf([one])])],
    ['Rules', 'rule', rules.map((rule) => [rule.name, ruleLines(rule), rateOf([rule])])],
    ['Pools', 'pool', pools.map((pool) => [pool.name, poolLines(pool), rateOf(pool.backends)])],
  ];
  const curves = linesOf(rules, pools);
  const ends = curves.map((line) => `${line.from}>${line.to}`).join(' ');
  const remeasure = (): void => {
    if (container.current !== null) setLayout(measure(container.current));
  };
  useLayoutEffect(remeasure, [ends]);
  useEffect(() => {
    const observer = new ResizeObserver(remeasure);
    if (container.current !== null) observer.observe(container.current);
    return () => observer.disconnect();
  }, []);

  return (
    <div class={backends.length > MANY_BACKENDS ? 'picture many' : 'picture'} ref={container}>
      <svg class="lines" aria-hidden="true">
        {curves.map((line) => (
          <Curve key={`${line.from}>${line.to}`} line={line} layout={layout} route={route} />
        ))}
      </svg>
      {layers.map(([title, kind, nodes]) => (
        <Layer key={kind} title={title}>
          {nodes.map(([name, lines, rate]) => (
            <Node key={name} id={`${kind}:${name}`} {...{ name, lines, rate, route }} />
          ))}
        </Layer>
      ))}
      <Layer title="Backends">
        {backends.map((backend) => (
          <BackendNode key={backend.id} backend={backend} route={route} />
        ))}
      </Layer>
    </div>
  );
}

/** The kernel plane has no listeners: a frontend is in the kernel with all its rules, or not at all. */
function frontendLines(
  { address, listeners }: FrontendView,
  kernel: StatusView['kernel'],
): readonly string[] {
  const { open, wanted } = listeners;
  if (!kernel?.mode.startsWith('kernel')) return [address, `${count(open)} of ${count(wanted)} listeners`];
  return [address, open === wanted ? 'in the kernel' : 'not in the kernel'];
}

function ruleLines(rule: RuleView): readonly string[] {
  const { protocols, haPorts, ports, distribution, symmetric, floatingIp } = rule;
  const how = `${distribution}${symmetric ? ', symmetric' : ''}${floatingIp ? ', floating IP' : ''}`;
  return [`${protocols.join(' + ')} ${haPorts ? 'HA ports' : ports}`, how];
}

function poolLines({ serving, servingPriority, backends }: BackendPoolView): readonly string[] {
  const which = servingPriority === undefined ? 'no backend serves' : `priority ${servingPriority} serves`;
  return [`${count(serving)} of ${count(backends.length)} serving`, which];
}

function Layer({ title, children }: { title: string; children: Child }) {
  return (
    <section class="layer">
      <h3>{title}</h3>
      <ul>{children}</ul>
    </section>
  );
}

function onRoute(name: string, route: Route): string {
  return route.includes(name) ? ' on-route' : '';
}

function Node(props: { id: string; name: string; lines: readonly string[]; rate: Rate; route: Route }) {
  return (
    <li class={`node${onRoute(props.id, props.route)}`} data-node={props.id}>
      <strong>{props.name}</strong>
      {props.lines.map((text, index) => (
        <span key={index}>{text}</span>
      ))}
      <Rates rate={props.rate} />
    </li>
  );
}

function Rates({ rate }: { rate: Rate }) {
  return (
    <span class="rates">
      {bitRate(rate.bits)} · {si(rate.newFlows)} new/s
    </span>
  );
}

/** Pointing at it or focusing it shows its history; Escape hides that; a press goes to its row in the table. */
function BackendNode({ backend, route }: { readonly backend: BackendView; route: Route }) {
  const [open, setOpen] = useState(false);
  const name = `backend:${backend.id}`;
  const id = `history-${backend.id}`;
  const goToRow = (): void => {
    setOpen(false);
    const row = document.getElementById(`row-${backend.id}`);
    row?.scrollIntoView({ block: 'center' });
    row?.focus();
  };
  return (
    <li
      class={`node backend ${conditionOf(backend)}${onRoute(name, route)}`}
      data-node={name}
      onMouseEnter={() => setOpen(true)}
      onMouseLeave={() => setOpen(false)}
      onKeyDown={(event) => event.key === 'Escape' && setOpen(false)}
    >
      <button
        type="button"
        class="plain"
        aria-describedby={open ? id : undefined}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onClick={goToRow}
      >
        <span class="line">
          <strong>{backend.name}</strong>
          <Condition backend={backend} />
        </span>
        <span>{backend.address}</span>
        <span title={conditionText(backend)}>{`${count(backend.traffic.flowsActive)} flows`}</span>
        <Rates rate={rateOf([backend])} />
      </button>
      {open && (
        <div class="pop" role="tooltip" id={id}>
          <HealthHistory backend={backend} />
        </div>
      )}
    </li>
  );
}

interface Line {
  /** Names of nodes. */
  readonly from: string;
  readonly to: string;
  readonly bitsPerSecond: number;
  /** No new flows. */
  readonly broken: boolean;
}

/** Frontend -> rule -> pool -> backend, with what runs along each. */
function linesOf(rules: readonly RuleView[], pools: readonly BackendPoolView[]): readonly Line[] {
  return [
    ...rules.flatMap((rule): Line[] => {
      const { bits: bitsPerSecond } = rateOf([rule]);
      const [here, pool] = [`rule:${rule.name}`, `pool:${rule.backendPool}`];
      return [
        { from: `frontend:${rule.frontend}`, to: here, bitsPerSecond, broken: false },
        { from: here, to: pool, bitsPerSecond, broken: rule.serving === 0 },
      ];
    }),
    ...pools.flatMap(({ name, backends }) =>
      backends.map((backend): Line => {
        const { bits: bitsPerSecond } = rateOf([backend]);
        return {
          from: `pool:${name}`,
          to: `backend:${backend.id}`,
          bitsPerSecond,
          broken: !backend.serving,
        };
      }),
    ),
  ];
}

function Curve(props: { line: Line; layout: Layout; route: Route }) {
  const { line, layout, route } = props;
  const [from, to] = [layout.boxes.get(line.from), layout.boxes.get(line.to)];
  if (from === undefined || to === undefined) return null;
  // Pixels: one for nothing, about ten at 10 Gbit/s.
  const width = Math.min(11, 1.25 + Math.log10(1 + line.bitsPerSecond / 1000) * 1.4);
  const marks = [
    line.to.split(':')[0],
    line.bitsPerSecond > 0 && 'busy',
    line.broken && 'broken',
    route.includes(line.from) && route.includes(line.to) && 'on-route',
  ];
  return (
    <path
      class={marks.filter(Boolean).join(' ')}
      d={curve(from, to, layout)}
      stroke-width={width}
      stroke-dasharray={line.broken ? `0.1 ${width * 1.6 + 3}` : undefined}
    />
  );
}

/** From the right edge of one box to the left edge of the next; downwards where layers stand below each other. */
function curve(from: DOMRect, to: DOMRect, { stacked }: Layout): string {
  const [x1, y1, x2, y2] = stacked
    ? [(from.left + from.right) / 2, from.bottom, (to.left + to.right) / 2, to.top]
    : [from.right, (from.top + from.bottom) / 2, to.left, (to.top + to.bottom) / 2];
  const [bendX, bendY] = stacked ? [0, (y2 - y1) / 2] : [(x2 - x1) / 2, 0];
  return `M${x1} ${y1}C${x1 + bendX} ${y1 + bendY} ${x2 - bendX} ${y2 - bendY} ${x2} ${y2}`;
}

/** Reads the layout from the page, so that lines follow it whatever it does. */
function measure(container: HTMLElement): Layout {
  const origin = container.getBoundingClientRect();
  const half = (value: number): number => Math.round(value * 2) / 2;
  const boxes = new Map<string, DOMRect>();
  for (const element of container.querySelectorAll<HTMLElement>('[data-node]')) {
    const { x, y, width, height } = element.getBoundingClientRect();
    const box = new DOMRect(half(x - origin.x), half(y - origin.y), half(width), half(height));
    boxes.set(element.dataset['node'] ?? '', box);
  }
  const [first, second] = [...container.querySelectorAll('.layer')].map((one) => one.getBoundingClientRect());
  return { boxes, stacked: first !== undefined && second !== undefined && second.top >= first.bottom };
}
