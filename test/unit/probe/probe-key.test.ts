import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { Probe } from '../../../src/model/configuration.js';
import { probeKey, questionKey } from '../../../src/health/scheduler.js';
import { httpProbe, tcpProbe } from './probe-fixtures.js';

const address = ipAddress('10.0.0.1');
const base = httpProbe();
const damping = { transitions: 6, windowMs: 60_000, holdMs: 30_000 };

const QUESTION: readonly Probe[] = [
  { ...base, port: 2 },
  { ...base, protocol: 'https' },
  { ...base, path: '/other' },
  { ...base, host: 'a.example' },
  { ...base, serverName: 'a.example' },
  { ...base, expectStatus: [{ first: 200, last: 299 }] },
  { ...base, expectBody: 'OK' },
  { ...base, ca: 'PEM' },
  { ...base, skipVerify: true },
  { ...base, sendProxy: 'v1' },
  { ...base, sourceAddress: ipAddress('10.0.0.9') },
  { ...base, weightFromProbeHeader: 'X-Weight' },
  { ...base, explicitAnswerFlips: false },
  tcpProbe(),
];
const PACING: readonly Probe[] = [
  { ...base, intervalMs: 1 },
  { ...base, timeoutMs: 1 },
  { ...base, upThreshold: 9 },
  { ...base, downThreshold: 9 },
  { ...base, flapDamping: damping },
];

test('probeKey() tells every difference but the name', () => {
  const keys = [base, ...QUESTION, ...PACING].map((probe) => probeKey(address, probe));
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(probeKey(address, { ...base, name: 'other' }), keys[0]);
  assert.notEqual(probeKey(ipAddress('10.0.0.2'), base), keys[0]);
});

test('questionKey() tells what is asked, not how often', () => {
  const keys = [base, ...QUESTION].map((probe) => questionKey(address, probe));
  assert.equal(new Set(keys).size, keys.length);
  for (const probe of PACING) assert.equal(questionKey(address, probe), keys[0]);
});

test('probeKey() does not depend on the order of a definition, on any level', () => {
  const { name, protocol, port, ...rest } = { ...base, flapDamping: damping };
  const { transitions, windowMs, holdMs } = damping;
  const turned: Probe = { ...rest, flapDamping: { holdMs, windowMs, transitions }, port, protocol, name };
  assert.equal(probeKey(address, turned), probeKey(address, { ...base, flapDamping: damping }));
});

test('probeKey() is short and readable, and shows no certificate', () => {
  const key = probeKey(address, { ...base, port: 9000, ca: 'x'.repeat(10_000) });
  assert.match(key, /^10\.0\.0\.1 http:9000 [0-9a-f]{16}$/);
});
