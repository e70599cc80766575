import { InvalidArgumentError } from 'commander';
import { parseDuration } from '../model/duration.js';
import type { AdminState } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';

/** A mistake in a command line: one line, exit code 2. */
export function usageError(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}

/** Which backend is meant: `pool/name` or `pool/address`. */
export interface BackendRef {
  readonly pool: string;
  readonly backend: string;
  readonly text: string;
}

/** Throws `LB_USAGE` on anything but two parts. Addresses may hold colons, not slashes. */
export function parseBackendRef(text: string): BackendRef {
  const [, pool, backend] = /^([^/]+)\/([^/]+)$/.exec(text) ?? [];
  if (pool === undefined || backend === undefined) {
    throw usageError(
      `Cannot read backend "${text}": it must be pool/backend, as nvas/nva-1 or nvas/127.0.0.11`,
    );
  }
  return { pool, backend, text };
}

/** For commander: a duration as in the configuration, kept as text. */
export function durationText(text: string): string {
  if (parseDuration(text) === undefined) {
    throw new InvalidArgumentError('It must be a whole number with a unit: 500ms, 10s, 10m or 1h.');
  }
  return text;
}

/** For commander: `2%`, or a share from 0 to 1 such as 0.02. */
export function share(text: string): number {
  const percent = /^(\d+(?:\.\d+)?)\s?%$/.exec(text)?.[1];
  const value =
    percent === undefined ? (/^[01](?:\.\d+)?$/.test(text) ? Number(text) : NaN) : Number(percent) / 100;
  if (!(value <= 1))
    throw new InvalidArgumentError('It must be at most 100%, as 2%, or a share from 0 to 1, as 0.02.');
  return value;
}

/** For commander: a whole number within bounds. */
export function wholeNumber(bounds: {
  readonly from: number;
  readonly to: number;
}): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= bounds.from && value <= bounds.to) return value;
    throw new InvalidArgumentError(`It must be a whole number, ${bounds.from} to ${bounds.to}.`);
  };
}

const ADMIN_STATES: readonly (AdminState | 'configured')[] = ['none', 'up', 'down', 'configured'];

/** Throws `LB_USAGE`. */
export function parseAdminState(text: string): AdminState | 'configured' {
  const state = ADMIN_STATES.find((one) => one === text);
  if (state !== undefined) return state;
  throw usageError(`Cannot set admin state "${text}": it must be none, up, down or configured`);
}

/** Throws `LB_USAGE`. */
export function parseWeight(text: string): number | 'configured' {
  if (text === 'configured') return text;
  const weight = /^\d{1,3}$/.test(text) ? Number(text) : NaN;
  if (weight <= 256) return weight;
  throw usageError(`Cannot set weight "${text}": it must be a whole number, 0 to 256, or configured`);
}
