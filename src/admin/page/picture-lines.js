// Where the lines of the picture run. Measured from the page, so that they follow whatever the layout does.

/** Pixels: one for nothing, about ten at 10 Gbit/s. */
export function thickness(bitsPerSecond) {
  return Math.min(11, 1.25 + Math.log10(1 + bitsPerSecond / 1000) * 1.4);
}

/** From the right edge of one box to the left edge of the next; downwards where layers stand below each other. */
export function curve(from, to, stacked) {
  if (stacked) {
    const [x1, y1, x2, y2] = [(from.left + from.right) / 2, from.bottom, (to.left + to.right) / 2, to.top];
    const bend = (y2 - y1) / 2;
    return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`;
  }
  const [x1, y1, x2, y2] = [from.right, (from.top + from.bottom) / 2, to.left, (to.top + to.bottom) / 2];
  const bend = (x2 - x1) / 2;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

/** Boxes of all elements with `data-node`, relative to the container, and whether layers stand below each other. */
export function measure(container) {
  const origin = container.getBoundingClientRect();
  const boxes = new Map();
  for (const element of container.querySelectorAll('[data-node]')) {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    const round = (value) => Math.round(value * 2) / 2;
    boxes.set(element.dataset.node, {
      left: round(left - origin.left),
      right: round(right - origin.left),
      top: round(top - origin.top),
      bottom: round(bottom - origin.top),
    });
  }
  const [first, second] = [...container.querySelectorAll('.layer')].map((one) => one.getBoundingClientRect());
  return { boxes, stacked: second.top >= first.bottom };
}

/** Frontend -> rule -> pool -> backend, with what runs along each. */
export function linesOf({ rules, pools }) {
  const sum = (traffic) => traffic.bitsToBackendPerSecond + traffic.bitsToClientPerSecond;
  const lines = [];
  for (const rule of rules) {
    const rate = sum(rule.traffic);
    const broken = rule.serving === 0;
    lines.push({ from: `frontend:${rule.frontend}`, to: `rule:${rule.name}`, rate, broken: false });
    lines.push({ from: `rule:${rule.name}`, to: `pool:${rule.backendPool}`, rate, broken });
  }
  for (const pool of pools) {
    for (const backend of pool.backends) {
      const to = `backend:${backend.id}`;
      lines.push({ from: `pool:${pool.name}`, to, rate: sum(backend.traffic), broken: !backend.serving });
    }
  }
  return lines;
}
