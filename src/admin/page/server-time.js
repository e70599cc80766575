// The time as the server has it: ages and deadlines are right also where this machine's clock is not.

/** Less than this may be the second's rounding of the Date header and the way of the answer. */
const TOLERANCE_MS = 2500;

let aheadMs = 0;

/** Takes note of an answer's Date header. */
export function noteServerTime(header) {
  const difference = Date.parse(header ?? '') - Date.now();
  if (Number.isNaN(difference)) return;
  // Within the tolerance of what is known, so that times do not jump back and forth.
  if (Math.abs(difference) < TOLERANCE_MS) aheadMs = 0;
  else if (Math.abs(difference - aheadMs) >= TOLERANCE_MS) aheadMs = difference;
}

/** Milliseconds since the epoch. */
export function serverNow() {
  return Date.now() + aheadMs;
}
