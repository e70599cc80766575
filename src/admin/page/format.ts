// Numbers and times as people read them. Pure; English, so that a screenshot reads the same everywhere.

import type { FlowView } from '../../api/views.js';

type Optional = number | null | undefined;

const NUMBER = new Intl.NumberFormat('en');
const UNKNOWN = '–';

/** 12345 -> "12,345"; undefined -> "–". */
export function count(value: Optional): string {
  return value == null ? UNKNOWN : NUMBER.format(Math.round(value));
}

/** A rate with one decimal where it is small: "0.4", "12". */
export function perSecond(value: Optional): string {
  return value != null && value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

/** Bits a second: "1.25 Mbit/s". */
export function bits(value: Optional): string {
  return scaled(value, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']);
}

/** "3.20 MiB". */
export function bytes(value: Optional): string {
  return scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

function scaled(value: Optional, base: number, units: readonly string[]): string {
  if (value == null) return UNKNOWN;
  let power = 0;
  let rest = value;
  while (rest >= base * 0.9995 && power < units.length - 1) {
    rest /= base;
    power += 1;
  }
  const digits = power === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)} ${units[power] ?? ''}`;
}

/** Share of 1: "33.4 %". */
export function percent(share: Optional): string {
  return share == null ? UNKNOWN : `${(share * 100).toFixed(1)} %`;
}

/** "0.8 s", "42 s", "3 min 05 s", "2 h 14 min", "3 d 4 h". */
export function duration(ms: Optional): string {
  if (ms == null) return UNKNOWN;
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${twoDigits(whole % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48
    ? `${hours} h ${twoDigits(minutes % 60)} min`
    : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Time of day, with the date where it is not today's. */
export function clock(atMs: number, nowMs = Date.now()): string {
  const at = new Date(atMs);
  const time = at.toTimeString().slice(0, 8);
  if (at.toDateString() === new Date(nowMs).toDateString()) return time;
  return `${at.getFullYear()}-${twoDigits(at.getMonth() + 1)}-${twoDigits(at.getDate())} ${time}`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

/** An address and a port; IPv6 in brackets. */
export function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** "tcp 192.0.2.7:40000 → 192.0.2.1:443" */
export function tupleText(tuple: FlowView['tuple']): string {
  const { protocol, source, sourcePort, destination, destinationPort } = tuple;
  return `${protocol} ${endpoint(source, sourcePort)} → ${endpoint(destination, destinationPort)}`;
}
