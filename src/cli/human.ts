const SI_STEPS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/**
 * Three significant digits with a decimal multiplier: 999, 1.23k, 45.6M. For what is counted and for bits; 1 k is 1000.
 */
export function formatSi(value: number): string {
  let scaled = value;
  let step = 0;
  // 999.5 would be rounded to 1000.
  while (Math.abs(scaled) >= 999.5 && step < SI_STEPS.length - 1) {
    scaled /= 1000;
    step++;
  }
  if (step === 0) return String(Math.round(scaled * 10) / 10);
  const digits = Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)}${SI_STEPS[step] ?? ''}`;
}

/** `812B`, `1.23kB`, `45.6MB`; 1 kB is 1000 bytes. */
export function formatBytes(bytes: number): string {
  return `${formatSi(bytes)}B`;
}

/** For sentences: `12.3 Mbit/s`. */
export function formatBitRate(bitsPerSecond: number): string {
  const [, digits = '0', unit = ''] = /^(-?[\d.]+)(.*)$/.exec(formatSi(bitsPerSecond)) ?? [];
  return `${digits} ${unit}bit/s`;
}

/** Whole numbers with their thousands set apart: `65,536`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** A share, 0 to 1: `33.3 %`. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** How long, in the two largest units: `42ms`, `7s`, `3m12s`, `2h05m`, `4d03h`. Less than nothing is `0s`. */
export function formatSpan(ms: number): string {
  if (ms < 1000) return ms < 1 ? '0s' : `${Math.round(Math.min(ms, 999))}ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${two(seconds % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

/** `3m12s ago`, or `never` where there is no such time. */
export function formatAgo(atMs: number | undefined, nowMs: number): string {
  return atMs === undefined ? 'never' : `${formatSpan(nowMs - atMs)} ago`;
}

/** `1 flow`, `2 flows`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}
