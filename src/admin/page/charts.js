import { html, useEffect, useRef, useState } from './htm-preact.js';
import uPlot from './uplot.js';
import { bits, clock, perSecond } from './format.js';
import { WINDOW_S } from './live-data.js';

const HEIGHT = 190;

/** Throughput and new flows of the last five minutes. Lines differ by dash as well as by colour. */
export function Charts({ series }) {
  return html`<div class="charts">
    <${Chart}
      title="Throughput"
      show=${bits}
      at=${series.at}
      lines=${[
        { name: 'to backends', colour: '--series-1', values: series.toBackend },
        { name: 'to clients', colour: '--series-2', dash: [6, 4], values: series.toClient },
      ]}
    />
    <${Chart}
      title="New flows per second"
      show=${perSecond}
      at=${series.at}
      lines=${[{ name: 'new flows', colour: '--series-3', values: series.newFlows }]}
    />
  </div>`;
}

function Chart({ title, show, at, lines }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [pointed, setPointed] = useState(null);
  const data = [at, ...lines.map((line) => line.values)];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(
        options(place.current, { show, lines, setPointed }),
        latest.current,
        place.current,
      );
    };
    draw();
    // The colours are drawn, not styled.
    dark.addEventListener('change', draw);
    const observer = new ResizeObserver(() =>
      plot.current.setSize({ width: place.current.clientWidth, height: HEIGHT }),
    );
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      dark.removeEventListener('change', draw);
      plot.current.destroy();
    };
  }, []);

  useEffect(() => plot.current?.setData(data), [at]);

  const index = pointed ?? at.length - 1;
  const values = lines.map((line) => `${line.name} ${show(line.values[index])}`).join(', ');
  return html`<figure>
    <figcaption>
      <h3>${title}</h3>
      <p>
        ${lines.map(
          (line) =>
            html`<span key=${line.name} class=${`legend ${line.colour.slice(2)}`}>
              <svg viewBox="0 0 24 4" width="24" height="4" aria-hidden="true">
                <path d="M0 2h24" stroke-width="3" stroke-dasharray=${line.dash?.join(' ')} />
              </svg>
              ${line.name} <strong>${show(line.values[index])}</strong>
            </span>`,
        )}
        <time>${at.length === 0 ? '' : clock(at[index] * 1000)}</time>
      </p>
    </figcaption>
    <div
      class="plot"
      ref=${place}
      role="img"
      aria-label=${`${title}, last five minutes. Now: ${values}`}
    ></div>
  </figure>`;
}

function options(place, { show, lines, setPointed }) {
  const style = getComputedStyle(place);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = '12px system-ui, sans-serif';
  const axis = {
    stroke: colour('--muted'),
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
    font,
  };
  return {
    width: place.clientWidth,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false },
    hooks: { setCursor: [(plot) => setPointed(plot.cursor.left < 0 ? null : plot.cursor.idx)] },
    scales: {
      x: { range: () => [Date.now() / 1000 - WINDOW_S, Date.now() / 1000] },
      // Never an empty range, so that a quiet line lies on the ground.
      y: { range: (plot, low, high) => [0, Math.max(1, (high ?? 0) * 1.1)] },
    },
    axes: [
      {
        ...axis,
        size: 26,
        space: 70,
        incrs: [60, 120, 300],
        values: (plot, ticks) => ticks.map((tick) => new Date(tick * 1000).toTimeString().slice(0, 8)),
      },
      { ...axis, size: 82, space: 36, values: (plot, ticks) => ticks.map((tick) => show(tick)) },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        stroke: colour(line.colour),
        width: 2,
        points: { show: false },
        ...(line.dash === undefined ? {} : { dash: line.dash }),
      })),
    ],
  };
}
