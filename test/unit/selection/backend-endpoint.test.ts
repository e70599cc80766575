import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { backendEndpoint } from '../../../src/selection/picker.js';
import { aBackend } from './fixtures.js';

const backend = aBackend('nva-1', '10.0.0.1', { floatingAddresses: { hub: ipAddress('127.1.0.1') } });

function dialled(rule: { floatingIp: boolean; portOffset: number }, port: number): string {
  const { address, port: to } = backendEndpoint(rule, backend, 'hub', port);
  return `${address.text} ${to}`;
}

test('backendEndpoint() keeps the port when the offset is 0', () => {
  assert.equal(dialled({ floatingIp: false, portOffset: 0 }, 8080), '10.0.0.1 8080');
});

test('backendEndpoint() moves the port by the offset, up and down', () => {
  assert.equal(dialled({ floatingIp: false, portOffset: 6000 }, 443), '10.0.0.1 6443');
  assert.equal(dialled({ floatingIp: false, portOffset: -8000 }, 8080), '10.0.0.1 80');
});

test('backendEndpoint() dials the alias for the frontend, port unchanged, with floating IP', () => {
  assert.equal(dialled({ floatingIp: true, portOffset: 6000 }, 443), '127.1.0.1 443');
});

test('backendEndpoint() throws on what the configuration should have refused', () => {
  const floating = { floatingIp: true, portOffset: 0 };
  assert.throws(() => backendEndpoint(floating, backend, 'other', 443), /"nvas\/10\.0\.0\.1".*"other"/);
  assert.throws(() => dialled({ floatingIp: false, portOffset: 6000 }, 60_000), /port 66000 must be 1-65535/);
  assert.throws(() => dialled({ floatingIp: false, portOffset: -443 }, 443), /port 0 must be 1-65535/);
});
