import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FlowLister, type FlowListQuery } from '../../../src/status/flows.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { FlowList } from '../../../src/api/views.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aTuple } from '../selection/fixtures.js';
import { aFlowRecord } from './counters-fixtures.js';
import { FlowPages } from './flow-pages.js';
import { settings } from '../control/settings.js';

function lab(records: readonly FlowRecord[]) {
  const clock = new FakeClock();
  const plane = new FlowPages(records);
  const lister = new FlowLister({ clock, plane, configuration: () => settings() });
  const list = (query: Partial<FlowListQuery> = {}): Promise<FlowList> =>
    lister.list({ sort: 'none', limit: 100, ...query });
  const ids = async (query: Partial<FlowListQuery> = {}) => (await list(query)).flows.map(({ id }) => id);
  return { clock, plane, list, ids };
}

/** Ids 1 to count; the next one's source port is one higher. */
function flows(count: number, of: (id: number) => Partial<FlowRecord> = () => ({})): FlowRecord[] {
  return Array.from({ length: count }, (_, index) => aFlowRecord(index + 1, of(index + 1)));
}

describe('FlowLister, sorted', () => {
  test('shows the oldest, the longest idle and those with most bytes first', async () => {
    const { ids } = lab([
      aFlowRecord(1, { openedAtMs: 300, idleMs: 5, bytesToBackend: 10 }),
      aFlowRecord(2, { openedAtMs: 100, idleMs: 9, bytesToClient: 5 }),
      aFlowRecord(3, { openedAtMs: 200, idleMs: 7, bytesToBackend: 3, bytesToClient: 8 }),
    ]);
    assert.deepEqual(await ids({ sort: 'age' }), [2, 3, 1]);
    assert.deepEqual(await ids({ sort: 'idle' }), [2, 3, 1]);
    assert.deepEqual(await ids({ sort: 'bytes' }), [3, 1, 2]);
  });

  test('finds the best of all pages and counts everything that matches', async () => {
    // Scattered over the pages: 7919 and 2500 have no common factor.
    const { plane, list } = lab(flows(2500, (id) => ({ openedAtMs: (id * 7919) % 2500 })));
    const { flows: shown, matched, next } = await list({ sort: 'age', limit: 3 });
    assert.deepEqual(
      shown.map(({ openedAtMs }) => openedAtMs),
      [0, 1, 2],
    );
    assert.equal(matched, 2500);
    assert.equal(next, undefined);
    assert.deepEqual(
      plane.queries.map(({ after, limit }) => [after, limit]),
      [
        [undefined, 1000],
        [1000, 1000],
        [2000, 1000],
      ],
    );
  });

  test('breaks ties by id', async () => {
    const { ids } = lab([5, 3, 4].map((id) => aFlowRecord(id)));
    assert.deepEqual(await ids({ sort: 'age', limit: 2 }), [3, 4]);
  });
});

describe('FlowLister, filtered', () => {
  const records = [
    aFlowRecord(1, { rule: 'web' }),
    aFlowRecord(2, { tuple: aTuple('192.0.2.7:1', '198.51.100.1:53', 'udp'), state: 'half-closed' }),
    aFlowRecord(3, { tuple: aTuple('[2001:db8::7]:1', '[2001:db8::1]:53'), reason: 'retry' }),
    aFlowRecord(4, { backendId: 'nvas/10.0.0.2' }),
    aFlowRecord(5, { backendId: 'nvas/10.0.0.99' }),
  ];

  for (const sort of ['age', 'none'] as const) {
    test(`leaves out what does not match, with sort ${sort}`, async () => {
      const { ids } = lab(records);
      assert.deepEqual(await ids({ sort, rule: 'web' }), [1]);
      assert.deepEqual(await ids({ sort, protocol: 'udp' }), [2]);
      assert.deepEqual(await ids({ sort, state: 'half-closed' }), [2]);
      assert.deepEqual(await ids({ sort, reason: 'retry' }), [3]);
      assert.deepEqual(await ids({ sort, source: '2001:db8::7' }), [3]);
      assert.deepEqual(await ids({ sort, source: '192.0.2.7', protocol: 'udp' }), [2]);
      assert.deepEqual(await ids({ sort, source: '192.0.2.8' }), []);
    });
  }

  test('has the plane look for a client, and reads nothing of the others', async () => {
    const client = aTuple('192.0.2.7:1', '198.51.100.1:53', 'udp');
    const others = flows(2500, () => ({ tuple: aTuple('192.0.2.8:1', '198.51.100.1:53') }));
    const { ids, plane } = lab([...others, aFlowRecord(9999, { tuple: client })]);
    assert.deepEqual(await ids({ sort: 'age', source: '192.0.2.7' }), [9999]);
    assert.deepEqual(await ids({ source: '192.0.2.7' }), [9999]);
    assert.deepEqual(
      plane.queries.map(({ source }) => source),
      ['192.0.2.7', '192.0.2.7'],
    );
  });

  test('takes a backend by id and by pool/name, and one that has left the configuration by id', async () => {
    const { ids, list } = lab(records);
    assert.deepEqual(await ids({ backend: 'nvas/nva-2' }), [4]);
    assert.deepEqual(await ids({ backend: 'nvas/10.0.0.2' }), [4]);
    assert.deepEqual(await ids({ backend: 'nvas/10.0.0.99' }), [5]);
    for (const backend of ['nva-2', 'nvas/nva-9', '/10.0.0.2', '10.0.0.2', '']) {
      await assert.rejects(list({ backend }), { code: 'LB_UNKNOWN_BACKEND' }, backend);
    }
  });

  test('counts what matches, not what is shown', async () => {
    const { list } = lab(flows(10, (id) => ({ state: id % 2 === 0 ? 'embryonic' : 'established' })));
    assert.equal((await list({ sort: 'age', state: 'embryonic', limit: 2 })).matched, 5);
  });
});

describe('FlowLister, unsorted', () => {
  test('goes page by page, each flow once, and reads no further than the page', async () => {
    const { plane, list } = lab(flows(250));
    const seen: number[] = [];
    let after: number | undefined;
    do {
      const page = await list({ limit: 100, ...(after === undefined ? {} : { after }) });
      seen.push(...page.flows.map(({ id }) => id));
      assert.equal(page.matched, page.flows.length);
      after = page.next;
    } while (after !== undefined);
    assert.deepEqual(
      seen,
      Array.from({ length: 250 }, (_, index) => index + 1),
    );
    assert.equal(plane.queries.length, 3);
  });

  test('fills a page over several of the plane where few match, and loses none of those between', async () => {
    const { list } = lab(flows(1000, (id) => ({ state: id % 100 >= 50 ? 'embryonic' : 'established' })));
    const first = await list({ state: 'embryonic', limit: 30 });
    assert.equal(first.flows.length, 30);
    assert.ok(first.next !== undefined);
    const rest = await list({ state: 'embryonic', limit: 1000, after: first.next });
    assert.deepEqual(
      [...first.flows, ...rest.flows].map(({ id }) => id),
      Array.from({ length: 1000 }, (_, index) => index + 1).filter((id) => id % 100 >= 50),
    );
    assert.equal(rest.next, undefined);
  });

  test('ends short, with a next, rather than read a great table for nothing', async () => {
    const { plane, list } = lab(flows(20_000));
    const page = await list({ state: 'embryonic', limit: 100 });
    assert.deepEqual([page.flows.length, page.next], [0, 5000]);
    assert.equal(plane.queries.length, 50);
  });
});

describe('FlowLister, by rate', () => {
  test('shows bits a second since the last listing, the fastest first, unknown ones last', async () => {
    const { clock, plane, list } = lab([aFlowRecord(1), aFlowRecord(2, { bytesToClient: 500 })]);
    const before = await list({ sort: 'rate' });
    assert.deepEqual(
      before.flows.map(({ bitsPerSecond }) => bitsPerSecond),
      [undefined, undefined],
    );
    clock.advance(2000);
    plane.records = [
      aFlowRecord(1, { bytesToBackend: 100 }),
      aFlowRecord(2, { bytesToClient: 900, bytesToBackend: 100 }),
      aFlowRecord(3, { bytesToClient: 1e9 }),
    ];
    const after = await list({ sort: 'rate' });
    assert.deepEqual(
      after.flows.map(({ id, bitsPerSecond }) => [id, bitsPerSecond]),
      [
        [2, 2000],
        [1, 400],
        [3, undefined],
      ],
    );
    assert.equal(after.matched, 3);
  });

  test('forgets after 30 seconds', async () => {
    const { clock, list } = lab([aFlowRecord(1)]);
    await list({ sort: 'rate' });
    clock.advance(30_000);
    assert.equal((await list({ sort: 'rate' })).flows[0]?.bitsPerSecond, undefined);
  });
});
