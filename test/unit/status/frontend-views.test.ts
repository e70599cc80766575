import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frontendViews } from '../../../src/status/views.js';
import { ipAddress } from '../../../src/model/address.js';
import { aFrontend, aRule, aState } from '../selection/fixtures.js';
import { aReading, aRow } from './counters-fixtures.js';

test('frontendViews() gives each frontend its rules, listeners and traffic', () => {
  const state = aState({
    configuration: {
      frontends: [aFrontend(), aFrontend({ name: 'constructor', address: ipAddress('2001:db8::1') })],
      rules: [
        aRule({ name: 'web' }),
        aRule({ name: 'dns' }),
        aRule({ name: 'six', frontend: 'constructor' }),
      ],
    },
  });
  const counters = aReading({
    listeners: { hub: { open: 3, wanted: 4 } },
    traffic: [
      aRow({ rule: 'web', flowsActive: 1 }),
      aRow({ rule: 'dns', flowsActive: 2 }),
      aRow({ rule: 'gone', flowsActive: 4 }),
    ],
  });
  const [hub, six] = frontendViews(state, { latest: { atMs: 0, counters } });
  assert.equal(hub?.address, '198.51.100.1');
  assert.deepEqual(hub.rules, ['web', 'dns']);
  assert.deepEqual(hub.listeners, { open: 3, wanted: 4 });
  assert.equal(hub.traffic.flowsActive, 3);
  assert.equal(six?.address, '2001:db8::1');
  assert.deepEqual(six.rules, ['six']);
  assert.deepEqual(six.listeners, { open: 0, wanted: 0 });
  assert.equal(six.traffic.flowsActive, 0);
});

test('frontendViews() shows frontends before the first sample', () => {
  assert.deepEqual(
    frontendViews(aState(), {}).map(({ name, traffic }) => [name, traffic.flowsActive]),
    [['hub', 0]],
  );
});
