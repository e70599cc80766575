import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { writeLine } from '../../../src/api/flow-log.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { replay, type ReplayReport } from '../../../src/whatif/replay.js';
import { fromBytes, ipAddress } from '../../../src/model/address.js';
import { flowLine } from '../../../src/observe/flow-log.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { campaign } from '../../support/campaign.js';
import { aFrontend, aRule, aTuple } from '../selection/fixtures.js';
import { aFlowRecord } from '../status/counters-fixtures.js';
import { inPieces, LogRecorder, randomFlows } from './recorded-flows.js';
import { aPool, settings } from '../control/settings.js';

const hash = await createHasher();
const [ONE, TWO, THREE] = ['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'] as const;

function recorder(): LogRecorder {
  return new LogRecorder(new ForwardingCompiler(hash), new Picker(hash));
}

function replayed(text: string): Promise<ReplayReport> {
  return replay(inPieces(text), { hash, picker: new Picker(hash) });
}

/** A small log: one configuration, one epoch, some flows. */
function smallLog(flows = 20): LogRecorder {
  const log = recorder();
  log.epoch(settings());
  for (const tuple of randomFlows(flows, 5)) log.place(tuple);
  return log;
}

const FLOWS = campaign({ share: 3000, whole: 10_000 });

describe('replay() of real decisions', () => {
  test(`finds ${FLOWS} random flows over two health changes and a reload as they were recorded`, async () => {
    const log = recorder();
    const flows = [...randomFlows(FLOWS, 12_345)];
    const configuration = settings({ tableSize: 65_537, backendPools: [aPool(5)] });
    const part = (n: number) => flows.slice(n * 0.3 * FLOWS, (n + 1) * 0.3 * FLOWS);
    log.epoch(configuration);
    for (const tuple of part(0)) log.place(tuple);
    log.epoch(configuration, { [TWO]: 'down' });
    for (const [index, tuple] of part(1).entries()) {
      log.place(tuple, index % 3 === 0 ? [ONE, THREE] : []);
    }
    log.epoch(configuration, { [ONE]: 'down' });
    for (const tuple of part(2)) log.place(tuple);
    log.epoch(settings({ digest: 'e'.repeat(64), seed: 9, tableSize: 509, backendPools: [aPool(2)] }));
    for (const tuple of part(3)) log.place(tuple);

    const report = await replayed(log.text);
    assert.deepEqual(
      { ...report, notChecked: Object.values(report.notChecked) },
      {
        ...{ lines: FLOWS + 6, configurations: 2, epochs: 4, decisions: FLOWS, checked: FLOWS, agree: FLOWS },
        ...{
          differ: 0,
          differences: [],
          notChecked: [0, 0, 0, 0, 0, 0],
          lost: 0,
          damaged: 0,
          damagedLines: [],
        },
      },
    );
    // A fifth of the flows of epoch 2 would have gone to the backend that was down.
    const shifted = await replayed(log.text.replaceAll('"epoch":2', '"epoch":1'));
    assert.ok(shifted.differ > 0.04 * FLOWS && shifted.differ < 0.1 * FLOWS, `${shifted.differ}`);
  });

  test('rebuilds weights, slow start, priorities and failing open', async () => {
    const log = recorder();
    const pool = aPool(4);
    const weighted = {
      ...pool,
      backends: pool.backends.map((backend, index) => ({
        ...backend,
        weight: index + 1,
        priority: index === 3 ? 1 : 0,
      })),
    };
    const rules = [
      aRule({ probe: 'alive', allDown: 'fail-open', symmetric: true, distribution: 'source-ip' }),
    ];
    const configuration = settings({ backendPools: [weighted], rules });
    log.epoch(configuration);
    for (const tuple of randomFlows(300, 1)) log.place(tuple);
    log.epoch(
      configuration,
      {},
      { rampPercent: ({ id }) => (id === TWO ? 30 : 100), override: () => ({ weight: 7 }) },
    );
    for (const tuple of randomFlows(300, 2)) log.place(tuple);
    log.epoch(configuration, { [ONE]: 'down', [TWO]: 'down', [THREE]: 'down', 'nvas/10.0.0.4': 'down' });
    for (const tuple of randomFlows(300, 3)) log.place(tuple);
    const report = await replayed(log.text);
    assert.deepEqual([report.agree, report.differ], [900, 0]);
    assert.match(log.text, /"reason":"fail-open"/);
  });

  test('checks flows that moved, by the epoch that they moved in', async () => {
    const log = recorder();
    const tuple = aTuple('192.0.2.7:40000', '198.51.100.1:443', 'udp');
    log.epoch(settings());
    log.epoch(settings(), { [ONE]: 'down', [TWO]: 'down' });
    const flow = aFlowRecord(1, { tuple, backendId: THREE, reason: 'rebalanced', epoch: 2 });
    const digest = settings().digest;
    const move = (backendId: string): string =>
      flowLine({ type: 'flow-moved', atMs: 1, flow: { ...flow, backendId }, fromBackendId: ONE }, digest);
    assert.equal((await replayed(log.text + move(THREE))).agree, 1);
    assert.equal((await replayed(log.text + move(ONE))).differ, 1);
  });
});

describe('replay() of what cannot be right', () => {
  test('names a line that was tampered with: another backend, another client, another excluded', async () => {
    const log = recorder();
    log.epoch(settings());
    for (const tuple of randomFlows(50, 8)) log.place(tuple);
    const victim = log.lines.findIndex((line) => line.includes(`"backend":"${ONE}"`));
    const changed = (edit: (line: string) => string): string =>
      log.lines.map((line, index) => (index === victim ? edit(line) : line)).join('');
    const report = await replayed(
      changed((line) => line.replace(`"backend":"${ONE}"`, `"backend":"${TWO}"`)),
    );
    assert.equal(report.differ, 1);
    assert.equal(report.agree, 49);
    const [difference] = report.differences;
    assert.equal(difference?.line, victim + 1);
    assert.deepEqual([difference.recorded, difference.recomputed], [TWO, ONE]);
    assert.match(difference.tuple, /^(tcp|udp) 192\./);
    const excluding = changed((line) => line.replace('"excluded":[]', `"excluded":["${ONE}"]`));
    assert.equal((await replayed(excluding)).differ, 1);
  });

  test('finds an epoch that was tampered with', async () => {
    const log = smallLog(50);
    const serving = `{"id":"${ONE}","eligible":true,"valid":true,"serving":true`;
    assert.ok(log.text.includes(serving));
    const report = await replayed(
      log.text.replace(serving, serving.replace('"serving":true', '"serving":false')),
    );
    assert.ok(report.differ > 5, `${report.differ}`);
  });

  test('finds a flow that its rule does not cover, unless a proxy told its addresses', async () => {
    const proxyProtocol = { accept: 'any', trustedSources: [], headerTimeoutMs: 3000 } as const;
    for (const [frontend, differ] of [
      [aFrontend(), 1],
      [aFrontend({ proxyProtocol }), 0],
    ] as const) {
      const log = recorder();
      log.epoch(settings({ frontends: [frontend], backendPools: [aPool(1)] }));
      const tuple = {
        ...aTuple('192.0.2.7:40000', '198.51.100.1:443'),
        destination: ipAddress('203.0.113.9'),
      };
      log.log({ tuple, rule: 'ha-ports', backendId: ONE, reason: 'hash' });
      assert.equal((await replayed(log.text)).differ, differ);
    }
  });

  test('says what it could not check, and why', async () => {
    const log = recorder();
    const rules = [aRule({ probe: 'alive' }), aRule({ name: 'syslog', udp: { perPacket: true } })];
    log.epoch(settings({ rules }));
    const tuple = aTuple('192.0.2.7:40000', '198.51.100.1:443', 'udp');
    const base = { tuple, rule: 'ha-ports', backendId: ONE, reason: 'hash' } as const;
    log.log({ ...base, epoch: 99 });
    log.log({ ...base, reason: 'pinned' });
    log.log({ ...base, rule: 'renamed' });
    const { digest } = log.state.configuration;
    log.lines.push(
      flowLine(
        { type: 'flow-moved', atMs: 1, flow: aFlowRecord(1, { tuple, rule: 'syslog' }), fromBackendId: ONE },
        digest,
      ),
    );
    log.lines.push(writeLine({ type: 'lost', atMs: 1000, lines: 7 }));
    const other = log.lines.length;
    log.log({ ...base, backendId: 'nvas/nobody' });
    log.lines[other] = (log.lines[other] ?? '').replace(digest, 'f'.repeat(64));
    const report = await replayed(log.text);
    assert.deepEqual(report.notChecked, {
      ...{ 'unknown-epoch': 1, 'unknown-configuration': 0, 'digest-mismatch': 1 },
      ...{ 'unknown-rule': 1, pinned: 1, 'per-packet': 1 },
    });
    assert.deepEqual([report.decisions, report.checked, report.lost], [5, 0, 7]);
    const [, ...withoutConfig] = smallLog().lines;
    assert.equal((await replayed(withoutConfig.join(''))).notChecked['unknown-configuration'], 20);
  });

  test('counts damaged lines with their numbers and goes on', async () => {
    const { lines } = smallLog(30);
    const damage = [
      'not JSON at all\n',
      '{"type":"start"}\n',
      '\n',
      '[]\n',
      (lines[5] ?? '').replace('198.51.100.1', 'nowhere'),
      (lines[5] ?? '').replace('"destination":"198.51.100.1"', '"destination":"198.51.100.256"'),
      '{"type":"config","format":2,"digest":"x","configuration":{}}\n',
      `{"type":"epoch","revision":2,"digest":"${settings().digest}","views":[]}\n`,
      '{"type":"something new"}\n',
    ];
    const torn = (lines[6] ?? '').slice(0, 40);
    const report = await replayed([...lines, ...damage, torn].join(''));
    assert.equal(report.agree, 30);
    assert.equal(report.lines, 32 + damage.length - 1 + 1);
    assert.deepEqual(
      report.damagedLines.map(({ line }) => line),
      [33, 34, 36, 37, 38, 39, 42],
    );
    assert.ok(report.damagedLines.every(({ evidence }) => evidence !== ''));
  });

  test('counts decisions of an epoch that makes no sense as damaged', async () => {
    const log = smallLog(3);
    assert.equal((await replayed(log.text.replaceAll('"tableSize":251', '"tableSize":250'))).damaged, 3);
    assert.equal(
      (await replayed(log.text.replaceAll('"tableSize":251', '"tableSize":2147483647'))).damaged,
      3,
    );
    const stranger = await replayed(log.text.replace(`{"id":"${ONE}"`, '{"id":"nvas/10.7.7.7"'));
    assert.equal(stranger.damaged, 3);
  });

  test('keeps at most 20 differences and 20 damaged lines', async () => {
    const log = smallLog(60);
    const wrong = log.text.replaceAll(/"backend":"nvas\/10\.0\.0\.\d"/g, '"backend":"nvas/10.0.0.9"');
    const report = await replayed(`${wrong}${'broken\n'.repeat(25)}`);
    assert.deepEqual([report.differ, report.differences.length], [60, 20]);
    assert.deepEqual([report.damaged, report.damagedLines.length], [25, 20]);
  });
});

describe('replay() over restarts', () => {
  test('reads a second run in the same file by its own epochs', async () => {
    const first = recorder();
    first.epoch(settings());
    first.epoch(settings(), { [ONE]: 'down' });
    for (const tuple of randomFlows(100, 1)) first.place(tuple);
    const second = recorder();
    second.epoch(settings(), { [TWO]: 'down' });
    for (const tuple of randomFlows(100, 2)) second.place(tuple);
    second.epoch(settings(), { [THREE]: 'down' });
    for (const tuple of randomFlows(100, 3)) second.place(tuple);
    const report = await replayed(first.text + second.text);
    assert.deepEqual([report.agree, report.differ], [300, 0]);
    // The first run's second epoch is over once the second run has begun.
    const [config, epoch] = second.lines;
    const [late] = first.lines.slice(-1);
    const mixed = await replayed([first.text, config, epoch, late].join(''));
    assert.deepEqual([mixed.agree, mixed.notChecked['unknown-epoch']], [100, 1]);
  });

  test('forgets epochs that are long past, not those of now', async () => {
    const log = recorder();
    const tuple = { ...aTuple('192.0.2.7:40000', '198.51.100.1:443'), source: fromBytes([192, 0, 2, 7]) };
    const configuration = settings();
    for (let revision = 0; revision < 1100; revision++) {
      log.epoch(configuration, revision % 2 === 0 ? {} : { [ONE]: 'down' });
      log.place(tuple);
    }
    log.log({ tuple, rule: 'ha-ports', backendId: ONE, reason: 'hash', epoch: 3 });
    const report = await replayed(log.text);
    assert.deepEqual([report.agree, report.notChecked['unknown-epoch']], [1100, 1]);
  });
});
