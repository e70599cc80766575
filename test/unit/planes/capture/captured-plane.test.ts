import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CapturedPlane } from '../../../../src/planes/capture/plane.js';
import type { CapturePlan } from '../../../../src/model/capture.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { PortInUse } from '../../../../src/planes/capture/ports-in-use.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { StateFactory } from '../../../support/state-factory.js';
import { ScriptedPlane } from '../workers/scripted-plane.js';
import { FRONTENDS, WEB_RULE, captured, capturedConfig, haRule } from './capture-fixtures.js';
import { FakeKeeper } from './fake-keeper.js';

const factory = await StateFactory.create();

/** All of both frontends: 101 and 100 TCP ports, 100 UDP ports each in one range; two routes, one address. */
const WHOLE = 'tcp4-four 101, udp4-four 1, tcp6-six 100, udp6-six 1; 3 routing';

class Lab {
  readonly inner = new ScriptedPlane();
  readonly log = this.inner.calls;
  readonly keeper = new FakeKeeper(this.log);
  readonly clock = new FakeClock();
  readonly events: PlaneEvent[] = [];
  ports: readonly PortInUse[] = [];
  own: ReadonlySet<string> = new Set();
  ownAsked = 0;
  lockFailure: Error | undefined;
  readonly plane: CapturedPlane;

  constructor({
    plan,
    workers = 1,
  }: { readonly plan?: Partial<CapturePlan>; readonly workers?: number } = {}) {
    this.plane = new CapturedPlane(
      {
        ...{ clock: this.clock, inner: this.inner },
        createReconciler: (onChange) => {
          this.keeper.onChange = onChange;
          return this.keeper;
        },
        lock: {
          take: () => {
            this.log.push('lock');
            return this.lockFailure === undefined ? Promise.resolve() : Promise.reject(this.lockFailure);
          },
          takeWhenFree: () => void this.log.push('lock when free'),
          release: () => void this.log.push('release'),
        },
        portsInUse: () => Promise.resolve(this.ports),
        ownSockets: () => {
          this.ownAsked++;
          return Promise.resolve(this.own);
        },
      },
      { plan: { ...captured().plan, ...plan }, workers },
    );
    this.plane.subscribe((events) => this.events.push(...events));
  }

  taken(...texts: readonly string[]): void {
    this.ports = texts.map((text) => {
      const [protocol, address = '', port, inode = '1'] = text.split(' ');
      return {
        protocol: protocol === 'udp' ? 'udp' : 'tcp',
        address: ipAddress(address),
        port: Number(port),
        inode,
      };
    });
  }

  async started(): Promise<this> {
    await this.plane.start(state());
    this.log.splice(0);
    return this;
  }
}

/** With a third frontend, which needs a route and an address more. */
const WIDER = capturedConfig({
  frontends: [...FRONTENDS, { name: 'more', address: '10.0.0.10' }],
  rules: ['four', 'more'].map((frontend) => haRule(`all-${frontend}`, frontend)),
});

function state(configuration: object = capturedConfig()) {
  return factory.state(configuration);
}

describe('CapturedPlane.start()', () => {
  test('takes the name, steers, then serves', async () => {
    const lab = new Lab();
    const report = await lab.plane.start(state());
    assert.deepEqual(lab.log, ['lock', `want ${WHOLE}`, `start ${report.revision}`]);
    assert.deepEqual(report.failures, []);
    const { mode, why, table } = lab.plane.kernelReport();
    assert.deepEqual(
      [mode, why, table],
      ['capture, udp redirect', 'The configuration asks for capture', 'inet haports-test'],
    );
    assert.deepEqual(
      lab.events.map((event) => event.type === 'kernel-changed' && [event.change, event.report.mode]),
      [['installed', 'capture, udp redirect']],
    );
  });

  test('touches nothing where another process has the name, at its stop either', async () => {
    const lab = new Lab();
    lab.lockFailure = new Error('taken');
    await assert.rejects(lab.plane.start(state()), /taken/);
    await lab.plane.stop(0);
    assert.deepEqual(
      lab.log.filter((line) => /install|remove/.test(line)),
      [],
    );
  });

  test('takes everything away where it fails', async () => {
    const lab = new Lab();
    lab.keeper.failing = 'want';
    await assert.rejects(lab.plane.start(state()), /want failed/);
    assert.deepEqual(lab.log, ['lock', `want ${WHOLE}`, 'stop 0 undefined', 'remove', 'release']);
    const other = new Lab();
    other.inner.startFailure = new Error('no socket');
    const before = state();
    await assert.rejects(other.plane.start(before), /no socket/);
    assert.deepEqual(other.log.slice(2), [
      ...[`start ${before.revision}`, 'stop 0 undefined', 'remove', 'release'],
    ]);
    assert.equal(other.keeper.present, undefined);
  });

  test('reports ports of others, and rejects where nothing is left', async () => {
    const lab = new Lab();
    lab.taken('tcp 10.0.0.9 8001');
    const { failures } = await lab.plane.start(state());
    assert.deepEqual(failures, [
      { rule: 'all', protocol: 'tcp', address: '10.0.0.9', port: 8001, errorCode: 'EADDRINUSE' },
    ]);
    assert.equal(lab.keeper.present?.sets.get('tcp4-four')?.has('8001'), false);
    const deaf = new Lab();
    const one = { ...WIDER, rules: [{ ...WEB_RULE, frontendPort: 80 }] };
    deaf.taken('tcp 0.0.0.0 80');
    await assert.rejects(deaf.plane.start(state(one)), { code: 'LB_LISTEN_FAILED' });
    assert.equal(deaf.keeper.present, undefined);
  });

  test('does not take sockets of its own process for those of others', async () => {
    const lab = new Lab();
    lab.taken('tcp 10.0.0.9 8001 77', 'udp 10.0.0.9 8002 78');
    lab.own = new Set(['77']);
    const { failures } = await lab.plane.start(state());
    assert.deepEqual(
      failures.map(({ port }) => port),
      [8002],
    );
  });

  test('in the place of another process serves first, and waits for the name', async () => {
    const lab = new Lab();
    await lab.plane.inherit([]);
    const { revision } = await lab.plane.start(state());
    await lab.clock.advanceAsync(1);
    assert.deepEqual(lab.log, [`start ${revision}`, 'lock when free', `want ${WHOLE}`]);
  });

  test('in the place of another process takes nothing of that one away where it fails', async () => {
    const lab = new Lab();
    lab.inner.startFailure = new Error('no socket');
    await lab.plane.inherit([]);
    await assert.rejects(lab.plane.start(state()), /no socket/);
    await lab.plane.stop(0);
    assert.equal(lab.log.includes('remove'), false);
  });
});

describe('CapturedPlane.apply()', () => {
  test('does nothing to the kernel for the same configuration', async () => {
    const lab = await new Lab().started();
    const { revision } = await lab.plane.apply(state());
    assert.deepEqual(lab.log, [`apply ${revision}`]);
  });

  test('makes sockets possible first, steers last, and takes no route away', async () => {
    const lab = await new Lab().started();
    const { revision } = await lab.plane.apply(state(WIDER));
    assert.deepEqual(lab.log, [
      'check tcp4-four 100, udp4-four 1, tcp4-more 100, udp4-more 1; 2 routing',
      `want ${WHOLE.replace('3 routing', '4 routing')}`,
      `apply ${revision}`,
      'want tcp4-four 100, udp4-four 1, tcp4-more 100, udp4-more 1; 4 routing',
    ]);
  });

  test('changes nothing where the kernel or the data plane refuses', async () => {
    const lab = await new Lab().started();
    lab.keeper.failing = 'check';
    await assert.rejects(lab.plane.apply(state(WIDER)), /check failed/);
    assert.equal(lab.log.length, 1);
    lab.inner.applyFailure = new Error('refused');
    await assert.rejects(lab.plane.apply(state(WIDER)), /refused/);
    assert.deepEqual([...(lab.keeper.present?.sets.keys() ?? [])][2], 'tcp6-six');
  });

  test('goes back where what is new cannot be steered', async () => {
    const lab = new Lab();
    const before = state();
    await lab.plane.start(before);
    lab.log.splice(0);
    const narrower = state(capturedConfig({ rules: [haRule('all', 'four')] }));
    lab.keeper.failing = 'want';
    await assert.rejects(lab.plane.apply(narrower), /want failed/);
    assert.deepEqual(
      lab.log.filter((line) => line.startsWith('apply')),
      [`apply ${narrower.revision}`, `apply ${before.revision}`],
    );
    await lab.plane.apply(state());
    assert.equal(lab.log.filter((line) => line.startsWith('want')).length, 1);
  });

  test('refuses a configuration that adds a port of another, not one that had it before', async () => {
    const lab = new Lab();
    lab.taken('tcp 10.0.0.9 8001');
    await lab.plane.start(state());
    lab.log.splice(0);
    assert.equal(
      (await lab.plane.apply(state(capturedConfig({ limits: { tcpFlows: 5 } })))).failures.length,
      1,
    );
    lab.taken('tcp 10.0.0.9 8001', 'tcp 10.0.0.10 8001');
    await assert.rejects(lab.plane.apply(state(WIDER)), {
      code: 'LB_LISTEN_FAILED',
      message: /10\.0\.0\.10/,
    });
  });
});

describe('CapturedPlane', () => {
  test('looks every 10 s whether others have let go of their ports', async () => {
    const lab = new Lab();
    lab.taken('tcp 10.0.0.9 8001');
    await lab.plane.start(state());
    lab.log.splice(0);
    await lab.clock.advanceAsync(10_000);
    assert.deepEqual([lab.log, lab.ownAsked], [[], 1], 'the same socket is not looked for again');
    lab.taken();
    await lab.clock.advanceAsync(10_000);
    assert.deepEqual(lab.log, [`want ${WHOLE}`]);
    assert.equal(lab.clock.pendingTimers, 0);
    assert.deepEqual((await lab.plane.apply(state())).failures, []);
  });

  test('has no open listeners while nothing is steered', async () => {
    const lab = await new Lab().started();
    lab.inner.present = { ...lab.inner.present, listeners: { four: { open: 2, wanted: 2 } } };
    assert.deepEqual((await lab.plane.counters()).listeners, { four: { open: 2, wanted: 2 } });
    lab.keeper.state = 'failing';
    assert.deepEqual((await lab.plane.counters()).listeners, { four: { open: 0, wanted: 2 } });
  });

  test('stop() takes everything away once the last flow is gone', async () => {
    const lab = await new Lab().started();
    await Promise.all([lab.plane.stop(5000), lab.plane.stop(0)]);
    assert.deepEqual(lab.log.slice(-2), ['remove', 'release']);
    assert.equal(lab.log.filter((line) => line === 'remove').length, 1);
  });

  test('stop() leaves what a successor serves by', async () => {
    const lab = await new Lab().started();
    await lab.plane.stop(5000, 'at-once');
    await lab.plane.stop(0);
    assert.equal(lab.log.includes('remove'), false);
    assert.equal(lab.log.includes('leave'), true);
    assert.notEqual(lab.keeper.present, undefined);
  });

  test('leaves the kernel to a successor before UDP stands still, and takes it back if that fails', async () => {
    const lab = await new Lab().started();
    await lab.plane.freezeUdp();
    await lab.plane.thawUdp();
    assert.deepEqual(lab.log, ['leave', 'freeze', 'thaw', `want ${WHOLE}`]);
  });

  test('cannot be handed over with several workers, and says what to do', async () => {
    assert.equal(new Lab().plane.whyNoHandOver(), undefined);
    const lab = new Lab({ workers: 2 });
    assert.match(lab.plane.whyNoHandOver() ?? '', /cannot be handed over .*: restart/);
    await assert.rejects(
      lab.plane.lend(() => undefined),
      { code: 'LB_RESTART_NEEDED' },
    );
  });
});
