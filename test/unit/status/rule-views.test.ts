import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleViews } from '../../../src/status/views.js';
import { SKETCH_REGISTERS } from '../../../src/flows/traffic.js';
import { portSetOf } from '../../../src/model/ports.js';
import { aBackend, aBackendState, aRule, aState } from '../selection/fixtures.js';
import { anArrival, aReading, aRow } from './counters-fixtures.js';

/** As if each of these registers had been chosen by one client. */
function sketchOf(...registers: readonly number[]): Uint8Array {
  const sketch = new Uint8Array(SKETCH_REGISTERS);
  for (const register of registers) sketch[register] = 1;
  return sketch;
}

describe('ruleViews()', () => {
  test('describes a rule and adds up both protocols', () => {
    const rule = aRule({ name: 'web', probe: 'alive', haPorts: false, ports: portSetOf(80, 81, 443) });
    const counters = aReading({
      traffic: [
        aRow({ rule: 'web', flowsActive: 2 }),
        aRow({ rule: 'web', protocol: 'udp', flowsActive: 3 }),
      ],
      arrivals: [
        anArrival({
          rule: 'web',
          arrivals: 10,
          drops: { denied: 1, 'no-backend': 2 },
          sourceSketch: sketchOf(1, 2),
        }),
        anArrival({
          rule: 'web',
          protocol: 'udp',
          arrivals: 5,
          drops: { denied: 4 },
          sourceSketch: sketchOf(2, 3),
        }),
        anArrival({ rule: 'other', arrivals: 99, drops: { denied: 99 }, sourceSketch: sketchOf(9) }),
      ],
    });
    const [view] = ruleViews(aState({ configuration: { rules: [rule] } }), { latest: { atMs: 0, counters } });
    assert.deepEqual(
      { ...view, traffic: view?.traffic.flowsActive },
      {
        name: 'web',
        frontend: 'hub',
        backendPool: 'nvas',
        probe: 'alive',
        protocols: ['tcp', 'udp'],
        haPorts: false,
        ports: '80-81,443',
        distribution: 'five-tuple',
        symmetric: false,
        floatingIp: false,
        allDown: 'reset',
        serving: 3,
        arrivals: 15,
        drops: { denied: 5, 'no-backend': 2 },
        distinctSources: 3,
        traffic: 5,
      },
    );
  });

  test('counts nobody as distinct where nobody counts', () => {
    const counters = aReading({ arrivals: [anArrival({ arrivals: 7 })] });
    const [view] = ruleViews(aState(), { latest: { atMs: 0, counters } });
    assert.equal(view?.distinctSources, 0);
    assert.equal(view.arrivals, 7);
  });

  test('counts who gets new flows, failing open too', () => {
    const down = { health: 'down', eligible: false, serving: false, exclusion: 'probe-down' } as const;
    const backends = [
      aBackendState(aBackend('a', '10.0.0.1'), down),
      aBackendState(aBackend('b', '10.0.0.2'), down),
      aBackendState(aBackend('c', '10.0.0.3'), { ...down, adminState: 'down' }),
    ];
    const view = { backends, table: new Uint16Array(0), failOpenTable: Uint16Array.of(0, 1, 0, 1, 0, 1, 0) };
    const state = aState({
      view,
      configuration: { rules: [aRule(), aRule({ name: 'open', allDown: 'fail-open' })] },
    });
    assert.deepEqual(
      ruleViews(state, {}).map(({ serving }) => serving),
      [0, 2],
    );
  });
});
