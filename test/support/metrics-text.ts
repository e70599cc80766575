import { parseScrape, type Series } from './prometheus-text.js';

export type MetricLine = Series;

/** All series of a scrape; throws where the text is not strictly what Prometheus reads. */
export function parseMetrics(text: string): readonly MetricLine[] {
  return parseScrape(text).series;
}

/** Sum over all series of a metric that have these labels. */
export function sumMetric(
  lines: readonly MetricLine[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  return lines
    .filter((line) => line.name === name)
    .filter((line) => Object.entries(labels).every(([key, value]) => line.labels[key] === value))
    .reduce((sum, { value }) => sum + value, 0);
}
