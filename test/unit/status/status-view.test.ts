import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { statusView, type StatusInputs } from '../../../src/status/views.js';
import type { BackendState, ForwardingState } from '../../../src/model/forwarding.js';
import type { KernelReport } from '../../../src/model/events.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aBackend, aBackendState, aRule, aState, aView } from '../selection/fixtures.js';
import { aReading, aRow, sent } from './counters-fixtures.js';

function inputs(overrides: Partial<StatusInputs> = {}): StatusInputs {
  const state = aState({
    configuration: { backendPools: [{ ...aState().configuration.backendPools[0]!, backends: backends() }] },
  });
  return {
    identity: { version: '1.2.3', pid: 42, startedAtMs: 1000, workers: 4 },
    configuration: state.configuration,
    news: { source: 'config.json', loadedAtMs: 1000 },
    state,
    report: { revision: 5, listeners: { tcp: 1, udp: 2 }, failures: [] },
    stopping: false,
    samples: {
      latest: { atMs: 0, counters: aReading({ workersLost: 1, traffic: [aRow({ flowsOpened: 4 })] }) },
    },
    ...{ silence: undefined, refusal: undefined, kernel: undefined, drains: [] },
    ...overrides,
  };
}

function backends() {
  return [1, 2, 3].map((n) => aBackend(`nva-${n}`, `10.0.0.${n}`));
}

const DOWN: Partial<BackendState> = { eligible: false, serving: false, exclusion: 'probe-down' };

/** Of three members, so many serve. */
function serving(
  count: number,
  view: Partial<ForwardingState['views'][number]> = {},
): ForwardingState['views'][number] {
  const members = backends().map((backend, index) => aBackendState(backend, index < count ? {} : DOWN));
  return aView({ backends: members, ...(count === 0 ? { table: new Uint16Array(0) } : {}), ...view });
}

function problems(overrides: Partial<StatusInputs>): readonly string[] {
  return statusView(inputs(overrides)).problems;
}

describe('statusView()', () => {
  test('sums up a balancer that is well', () => {
    const status = sent(statusView(inputs()));
    assert.deepEqual(
      { ...status, traffic: status.traffic.flowsOpened },
      {
        version: '1.2.3',
        pid: 42,
        startedAtMs: 1000,
        workers: 4,
        workersLost: 1,
        configuration: { source: 'config.json', digest: 'd'.repeat(64), loadedAtMs: 1000 },
        revision: 5,
        problems: [],
        listeners: { tcp: 1, udp: 2 },
        table: {
          tcp: { used: 0, limit: 100 },
          udp: { used: 0, limit: 100 },
          embryonic: { used: 0, limit: 10 },
        },
        traffic: 4,
        backends: { total: 3, serving: 3 },
        drains: [],
      },
    );
  });

  test('is there before the first apply', () => {
    const status = statusView(inputs({ state: undefined, report: undefined, samples: {} }));
    assert.equal(status.revision, 0);
    assert.deepEqual(status.problems, ['No forwarding state has been applied yet']);
    assert.deepEqual(status.table.tcp, { used: 0, limit: 100 });
    assert.deepEqual(status.backends, { total: 3, serving: 0 });
  });

  test('counts a backend once that serves in several views', () => {
    const state = { ...aState(), views: [serving(2), serving(3)] };
    assert.equal(statusView(inputs({ state })).backends.serving, 3);
  });
});

describe('problems of a status', () => {
  test('are a process that stops, and a plane that is silent or refuses', () => {
    assert.deepEqual(
      problems({
        stopping: true,
        silence: 'No answer in 1000 ms',
        refusal: { revision: 7, message: 'EMFILE' },
      }),
      [
        'The process is stopping',
        'Data plane gives no counters: No answer in 1000 ms',
        'Data plane refused revision 7: EMFILE',
      ],
    );
  });

  test('are listeners that are not open', () => {
    const none = { revision: 5, listeners: { tcp: 0, udp: 0 }, failures: [] };
    assert.deepEqual(problems({ report: none }), ['No listener is open']);
    const counters = aReading({ listeners: { hub: { open: 1, wanted: 4 }, six: { open: 2, wanted: 2 } } });
    assert.deepEqual(problems({ samples: { latest: { atMs: 0, counters } } }), [
      'Frontend "hub": 1 of 4 listeners are open',
    ]);
  });

  test('are pools that nobody or too few serve', () => {
    const state = (view: ForwardingState['views'][number], allDown: 'reset' | 'fail-open' = 'reset') => {
      const { configuration } = aState({ configuration: { rules: [aRule({ allDown })] } });
      return {
        state: {
          ...aState(),
          configuration,
          views: [{ ...view, pool: { ...view.pool, minimumHealthy: 2 } }],
        },
      };
    };
    assert.deepEqual(problems(state(serving(0))), ['Pool "nvas": no backend serves']);
    assert.deepEqual(problems(state(serving(0, { probe: tcpProbe({ name: 'alive' }) }))), [
      'Pool "nvas" by probe "alive": no backend serves',
    ]);
    const failOpenTable = Uint16Array.of(0, 1, 2);
    assert.deepEqual(problems(state(serving(0, { failOpenTable }), 'fail-open')), [
      'Pool "nvas": no backend serves, new flows fail open',
    ]);
    assert.deepEqual(problems(state(serving(1))), ['Pool "nvas": 1 of at least 2 backends serve']);
    assert.deepEqual(problems(state(serving(2))), []);
  });

  test('are workers that are gone, and full tables', () => {
    const counters = aReading({
      eventLoopDelaySeconds: [0.01, Number.NaN],
      table: {
        tcp: { used: 100, limit: 100 },
        udp: { used: 99, limit: 100 },
        embryonic: { used: 0, limit: 0 },
      },
    });
    assert.deepEqual(problems({ samples: { latest: { atMs: 0, counters } } }), [
      'Data worker 1 is being replaced',
      'Flow table tcp is full: 100 flows',
    ]);
  });

  test('are the only worker that is gone, of which nothing is said at all', () => {
    const alone = aState({ configuration: { workers: 1 } });
    const samples = { latest: { atMs: 0, counters: aReading({ eventLoopDelaySeconds: [] }) } };
    assert.deepEqual(problems({ state: alone, samples }), ['Data worker 0 is being replaced']);
    assert.deepEqual(problems({ state: alone, samples: {} }), []);
  });

  test('shows what the plane keeps in the kernel, and that it is a problem where it is not there', () => {
    const kernel: KernelReport = {
      ...{ table: 'inet haports', mode: 'capture, udp redirect', why: 'Because' },
      ...{ state: 'in-place', sinceMs: 1000, repairs: 2, failures: 0, tool: 'nftables v1.0.6' },
    };
    const well = statusView(inputs({ kernel }));
    assert.deepEqual([well.kernel, well.problems], [kernel, []]);
    assert.deepEqual(problems({ kernel: { ...kernel, state: 'absent' } }), [
      'Table inet haports is not in the kernel',
    ]);
    const lastFailure = { atMs: 2000, text: 'nft failed: no' };
    assert.deepEqual(problems({ kernel: { ...kernel, state: 'failing', lastFailure } }), [
      'Table inet haports cannot be put in the kernel: nft failed: no',
    ]);
  });
});
