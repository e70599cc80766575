// Numbers and times as people read them. Pure; English, so that a screenshot reads the same everywhere.

const NUMBER = new Intl.NumberFormat('en');

/** 12345 -> "12,345"; undefined -> "–". */
export function count(value) {
  return value === undefined || value === null ? '–' : NUMBER.format(Math.round(value));
}

/** A rate with one decimal where it is small: "0.4", "12". */
export function perSecond(value) {
  if (value === undefined || value === null) return '–';
  return value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

function scaled(value, base, units) {
  let power = 0;
  let rest = value;
  while (rest >= base * 0.9995 && power < units.length - 1) {
    rest /= base;
    power += 1;
  }
  const digits = power === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)} ${units[power]}`;
}

/** Bits a second: "1.25 Mbit/s". */
export function bits(value) {
  if (value === undefined || value === null) return '–';
  return scaled(value, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']);
}

/** "3.20 MiB". */
export function bytes(value) {
  if (value === undefined || value === null) return '–';
  return scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** Share of 1: "33.4 %". */
export function percent(share) {
  return share === undefined ? '–' : `${(share * 100).toFixed(1)} %`;
}

/** "0.8 s", "42 s", "3 min 05 s", "2 h 14 min", "3 d 4 h". */
export function duration(ms) {
  if (ms === undefined) return '–';
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (number) => String(number).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${pad(whole % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${pad(minutes % 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Time of day, with the date where it is not today's. */
export function clock(atMs, nowMs = Date.now()) {
  const at = new Date(atMs);
  const time = at.toTimeString().slice(0, 8);
  if (at.toDateString() === new Date(nowMs).toDateString()) return time;
  const pad = (number) => String(number).padStart(2, '0');
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

/** An address and a port; IPv6 in brackets. */
export function endpoint(address, port) {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The part of a backend's id after the pool. */
export function addressOf(backendId) {
  return backendId.slice(backendId.indexOf('/') + 1);
}

/** Its name where it has one besides the address. */
export function backendLabel(name, id) {
  return name === undefined || name === addressOf(id) ? addressOf(id) : `${name} (${addressOf(id)})`;
}
