import { bitRate, clock, si } from '../../api/words.js';
import { WINDOW_S, type Series } from './api.js';
import { h, useEffect, useRef, useState } from 'htm/preact/standalone';
import uPlot from 'uplot';

const HEIGHT = 190;
const UNKNOWN = '–';

interface Line {
  readonly name: string;
  /** A custom property of the style. */
  readonly colour: 'accent' | 'second' | 'good';
  readonly dash?: number[];
  readonly values: (number | null)[];
}

type Show = (value: number) => string;

/** Throughput and new flows of the last five minutes. Lines differ by dash as well as by colour. */
export function Charts({ series }: { series: Series }) {
  const { at, toBackend, toClient, newFlows } = series;
  return (
    <div class="charts">
      <Chart
        title="Throughput"
        show={bitRate}
        at={at}
        lines={[
          { name: 'to backends', colour: 'accent', values: toBackend },
          { name: 'to clients', colour: 'second', dash: [6, 4], values: toClient },
        ]}
      />
      <Chart
        title="New flows per second"
        show={si}
        at={at}
        lines={[{ name: 'new flows', colour: 'good', values: newFlows }]}
      />
    </div>
  );
}

function Chart(props: { title: string; show: Show; at: number[]; lines: readonly Line[] }) {
  const { title, show, at, lines } = props;
  const place = useRef<HTMLDivElement | null>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [pointed, setPointed] = useState<number>();
  const data: uPlot.AlignedData = [at, ...lines.map((line) => line.values)];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const draw = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(
        optionsOf(element, { show, lines, onPoint: setPointed }),
        latest.current,
        element,
      );
    };
    draw();
    // The colours are drawn, not styled.
    dark.addEventListener('change', draw);
    const observer = new ResizeObserver(() =>
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      dark.removeEventListener('change', draw);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [at]);

  const index = pointed ?? at.length - 1;
  const seconds = at[index];
  const shown = ({ values }: Line): string => {
    const value = values[index] ?? undefined;
    return value === undefined ? UNKNOWN : show(value);
  };
  const values = lines.map((line) => `${line.name} ${shown(line)}`).join(', ');
  return (
    <figure>
      <figcaption>
        <h3>{title}</h3>
        <p>
          {lines.map((line) => (
            <span key={line.name} class="legend">
              <svg viewBox="0 0 24 4" width={24} height={4} aria-hidden="true">
                <path
                  d="M0 2h24"
                  stroke-width="3"
                  stroke-dasharray={line.dash?.join(' ')}
                  style={{ stroke: `var(--${line.colour})` }}
                />
              </svg>
              {line.name} <strong>{shown(line)}</strong>
            </span>
          ))}
          <time>{seconds === undefined ? '' : clock(seconds * 1000)}</time>
        </p>
      </figcaption>
      <div class="plot" ref={place} role="img" aria-label={`${title}, last five minutes. Now: ${values}`} />
    </figure>
  );
}

function optionsOf(
  element: HTMLElement,
  options: {
    readonly show: Show;
    readonly lines: readonly Line[];
    readonly onPoint: (index: number | undefined) => void;
  },
): uPlot.Options {
  // A canvas cannot resolve a custom property.
  const colour = (name: string): string => {
    element.style.color = `var(--${name})`;
    return getComputedStyle(element).color;
  };
  const axis: uPlot.Axis = {
    stroke: colour('muted'),
    grid: { stroke: colour('line'), width: 1 },
    ticks: { show: false },
    font: '12px system-ui, sans-serif',
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false },
    hooks: {
      setCursor: [
        ({ cursor: { left = -1, idx } }) => options.onPoint(left < 0 ? undefined : (idx ?? undefined)),
      ],
    },
    scales: {
      x: { range: () => [Date.now() / 1000 - WINDOW_S, Date.now() / 1000] },
      // Never an empty range, so that a quiet line lies on the ground.
      y: { range: (_plot, _low, high: number | null) => [0, Math.max(1, (high ?? 0) * 1.1)] },
    },
    axes: [
      {
        ...axis,
        size: 26,
        space: 70,
        incrs: [60, 120, 300],
        values: (_plot, ticks) => ticks.map((tick) => new Date(tick * 1000).toTimeString().slice(0, 8)),
      },
      { ...axis, size: 82, space: 36, values: (_plot, ticks) => ticks.map((tick) => options.show(tick)) },
    ],
    series: [
      {},
      ...options.lines.map(({ colour: name, dash }) => ({
        stroke: colour(name),
        width: 2,
        points: { show: false },
        dash,
      })),
    ],
  };
}
