import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { backendEndpoint } from '../../../src/selection/picker.js';
import { aBackend } from './fixtures.js';

const backend = aBackend('nva-1', '10.0.0.1', { floatingAddresses: { hub: ipAddress('127.1.0.1') } });

for (const [what, floatingIp, portOffset, port, expected] of [
  ['keeps the port when the offset is 0', false, 0, 8080, '10.0.0.1 8080'],
  ['moves the port up by the offset', false, 6000, 443, '10.0.0.1 6443'],
  ['moves the port down by the offset', false, -8000, 8080, '10.0.0.1 80'],
  ['dials the alias for the frontend, port unchanged, with floating IP', true, 6000, 443, '127.1.0.1 443'],
  ['throws on a port above the range', false, 6000, 60_000, /port 66000 must be 1-65535/],
  ['throws on a port below the range', false, -443, 443, /port 0 must be 1-65535/],
] as const) {
  test(`backendEndpoint() ${what}`, () => {
    const dialled = () => backendEndpoint({ floatingIp, portOffset }, backend, 'hub', port);
    if (typeof expected === 'string') assert.equal(`${dialled().address.text} ${dialled().port}`, expected);
    else assert.throws(dialled, expected);
  });
}

test('backendEndpoint() throws where floating IP has no alias, which the configuration should have refused', () => {
  const floating = { floatingIp: true, portOffset: 0 };
  assert.throws(() => backendEndpoint(floating, backend, 'other', 443), /"nvas\/10\.0\.0\.1".*"other"/);
});
