import { createHash } from 'node:crypto';
import type { IpAddress } from '../model/address.js';
import type { Probe } from '../model/probe.js';

/** A label: no part of what is asked. */
const LABEL: readonly (keyof Probe)[] = ['name'];

/** How often and how patiently is asked, as opposed to what. */
const PACING: readonly (keyof Probe)[] = [
  'intervalMs',
  'timeoutMs',
  'upThreshold',
  'downThreshold',
  'flapDamping',
];

/**
 * Identity of a probe target: the backend's address and all of the probe's definition but its name. Rules, pools
 * and probes that agree in both share one target. Short, stable over restarts, fit for logs:
 * `127.0.0.11 http:9000 5c1f0e6a93d2b7c4`.
 */
export function probeKey(address: IpAddress, probe: Probe): string {
  return keyWithout(LABEL, address, probe);
}

/**
 * As probeKey, less interval, timeout, thresholds and damping: targets with equal keys ask the same question, so one
 * may start with what the other knows when only the pacing is edited.
 */
export function questionKey(address: IpAddress, probe: Probe): string {
  return keyWithout([...LABEL, ...PACING], address, probe);
}

function keyWithout(left: readonly string[], address: IpAddress, probe: Probe): string {
  const definition = Object.fromEntries(Object.entries(probe).filter(([field]) => !left.includes(field)));
  const digest = createHash('sha256').update(canonicalJson(definition)).digest('hex').slice(0, 16);
  return `${address.text} ${probe.protocol}:${probe.port} ${digest}`;
}

/** JSON with sorted keys, so that the order in which a definition was written never matters. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_field, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    // An address is its text; its bytes would be the same again.
    if ('bytes' in part && 'text' in part) return part.text;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
