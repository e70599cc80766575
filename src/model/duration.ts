const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Parses a whole number with a unit, `"500ms"`, `"5s"`, `"4m"` or `"1h"`, into milliseconds. Undefined on anything
 * else: no fractions, no signs, no bare numbers, no compounds such as `"1m30s"`.
 */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h)$/.exec(text);
  const unitMs = UNIT_MS[match?.[2] ?? ''];
  return match === null || unitMs === undefined ? undefined : Number(match[1]) * unitMs;
}

/** The shortest text that parseDuration turns back into `ms`: 240000 is `"4m"`. Takes a whole number, 0 or more. */
export function formatDuration(ms: number): string {
  for (const unit of ['h', 'm', 's']) {
    const unitMs = UNIT_MS[unit] ?? 1;
    if (ms !== 0 && ms % unitMs === 0) return `${ms / unitMs}${unit}`;
  }
  return `${ms}ms`;
}
