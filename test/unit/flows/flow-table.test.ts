import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FlowTable } from '../../../src/flows/flow-table.js';
import type { Limits } from '../../../src/model/configuration.js';
import { aFlow, aTuple, placementOn } from './flow-fixtures.js';

const LIMITS: Limits = { tcpFlows: 3, udpFlows: 2, embryonicFlows: 2, embryonicTimeoutMs: 1000 };

describe('FlowTable', () => {
  test('refusal() keeps TCP, UDP and embryonic budgets apart', () => {
    const table = new FlowTable(LIMITS);
    const flows = [aFlow(1, 'tcp'), aFlow(2, 'tcp')];
    for (const flow of flows) table.add(flow);
    assert.equal(table.refusal('tcp', 'x'), 'embryonic-full');
    assert.equal(table.refusal('udp', 'x'), undefined);
    for (const flow of flows) table.change(flow, () => (flow.state = 'established'));
    assert.equal(table.refusal('tcp', 'x'), undefined);
    const third = aFlow(3, 'tcp');
    table.add(third);
    table.change(third, () => (third.state = 'established'));
    assert.equal(table.refusal('tcp', 'x'), 'table-full');
    table.add(aFlow(4, 'udp'));
    table.add(aFlow(5, 'udp'));
    assert.equal(table.refusal('udp', 'x'), 'table-full');
    table.remove(third);
    assert.equal(table.refusal('tcp', 'x'), undefined);
    assert.deepEqual(table.use('tcp'), { used: 2, limit: 3 });
    assert.deepEqual(table.use('udp'), { used: 2, limit: 2 });
    assert.deepEqual(table.use('embryonic'), { used: 0, limit: 2 });
    assert.equal(table.size, 4);
  });

  test('use() counts a blackholed TCP flow as embryonic and a blackholed UDP flow as UDP', () => {
    const table = new FlowTable(LIMITS);
    const [tcp, udp] = [aFlow(1, 'tcp'), aFlow(2, 'udp')];
    for (const flow of [tcp, udp]) {
      table.add(flow);
      table.change(flow, () => (flow.state = 'established'));
      table.change(flow, () => (flow.state = 'blackholed'));
    }
    assert.deepEqual(
      (['tcp', 'udp', 'embryonic'] as const).map((budget) => table.use(budget).used),
      [0, 1, 1],
    );
  });

  test('refusal() caps a source by protocol, and follows a flow whose source becomes known', () => {
    const table = new FlowTable({ ...LIMITS, tcpFlowsPerSource: 1 });
    const flow = aFlow(1, 'tcp', '192.0.2.1');
    table.add(flow);
    assert.equal(table.refusal('tcp', '192.0.2.1'), 'source-cap');
    assert.equal(table.refusal('udp', '192.0.2.1'), undefined);
    table.change(flow, () => (flow.tuple = aTuple('tcp', '192.0.2.2')));
    assert.equal(table.refusal('tcp', '192.0.2.1'), undefined);
    assert.equal(table.refusal('tcp', '192.0.2.2'), 'source-cap');
    table.remove(flow);
    assert.equal(table.refusal('tcp', '192.0.2.2'), undefined);
  });

  test('setLimits() lets flows stay that are over the new limit', () => {
    const table = new FlowTable(LIMITS);
    table.add(aFlow(1, 'udp'));
    table.add(aFlow(2, 'udp'));
    table.setLimits({ ...LIMITS, udpFlows: 1 });
    assert.equal(table.size, 2);
    assert.equal(table.refusal('udp', 'x'), 'table-full');
  });

  test('setLimits() caps a source by the flows that are there, and forgets a cap that goes', () => {
    const table = new FlowTable({ ...LIMITS, udpFlows: 100 });
    const flows = [1, 2, 3].map((id) => aFlow(id, 'udp', '192.0.2.1'));
    for (const flow of flows) table.add(flow);
    table.add(aFlow(4, 'tcp', '192.0.2.1'));
    const capped = { ...LIMITS, udpFlows: 100, udpFlowsPerSource: 3 };
    table.setLimits(capped);
    assert.equal(table.refusal('udp', '192.0.2.1'), 'source-cap');
    assert.equal(table.refusal('udp', '192.0.2.2'), undefined);
    table.setLimits({ ...LIMITS, udpFlows: 100 });
    table.remove(flows[0]!);
    table.setLimits(capped);
    assert.equal(table.refusal('udp', '192.0.2.1'), undefined);
    table.add(flows[0]!);
    assert.equal(table.refusal('udp', '192.0.2.1'), 'source-cap');
  });

  test('flowsOn() is right whatever comes and goes in whatever order', () => {
    const backends = ['a', 'b', undefined];
    const step = fc.record({ flow: fc.nat(7), to: fc.constantFrom(...backends, 'out') });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const table = new FlowTable({ ...LIMITS, udpFlows: 100 });
        const flows = Array.from({ length: 8 }, (_, id) => aFlow(id, 'udp'));
        for (const { flow: index, to } of steps) {
          const flow = flows[index]!;
          if (to === 'out') table.remove(flow);
          else {
            if (flow.tableIndex < 0) table.add(flow);
            table.change(flow, () => (flow.placement = to === undefined ? undefined : placementOn(to)));
          }
          for (const backend of ['a', 'b']) {
            const expected = flows.filter(
              (one) => one.tableIndex >= 0 && one.placement?.backendId === backend,
            );
            assert.deepEqual(new Set(table.flowsOn(backend)), new Set(expected));
            assert.equal(table.flowsOn(backend).length, expected.length);
            assert.equal(table.backendIds().includes(backend), expected.length > 0);
          }
        }
        for (const flow of table.flowsOn('a')) table.remove(flow);
        assert.deepEqual(table.flowsOn('a'), []);
      }),
    );
  });

  test('refusal() keeps a quarter of the descriptors for TCP, whose flows take two', () => {
    const table = new FlowTable({ ...LIMITS, tcpFlows: 100, udpFlows: 100, embryonicFlows: 100 });
    table.setDescriptorRoom(8);
    for (let id = 0; id < 6; id++) {
      assert.equal(table.refusal('udp', 'x'), undefined);
      table.add(aFlow(id, 'udp'));
    }
    assert.equal(table.refusal('udp', 'x'), 'descriptors-exhausted');
    assert.equal(table.refusal('udp', 'x', 0), undefined, 'balanced by datagram');
    const tcp = aFlow(6, 'tcp');
    assert.equal(table.refusal('tcp', 'x'), undefined);
    table.add(tcp);
    assert.equal(table.refusal('tcp', 'x'), 'descriptors-exhausted');
    assert.deepEqual(table.descriptorUse(), { used: 8, limit: 8 });
    table.remove(tcp);
    table.remove(tcp);
    assert.deepEqual(table.descriptorUse(), { used: 6, limit: 8 });
  });

  test('evictable() is the flow that a list of all would give', () => {
    const step = fc.record({
      flow: fc.nat(7),
      what: fc.constantFrom('add', 'remove', 'answered', 'heard', 'add', 'heard'),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const table = new FlowTable({ ...LIMITS, udpFlows: 1 });
        const flows = Array.from({ length: 8 }, (_, id) => aFlow(id, id === 7 ? 'tcp' : 'udp'));
        let expected: (typeof flows)[number][] = [];
        for (const { flow: index, what } of steps) {
          const flow = flows[index]!;
          const isIn = flow.tableIndex >= 0;
          const isQueued = expected.includes(flow);
          if (what === 'add') {
            if (isIn) continue;
            table.add(flow);
            if (index !== 7) expected.push(flow);
            continue;
          }
          if (what === 'remove') table.remove(flow);
          else if (what === 'answered') table.answered(flow);
          else table.heardFromClient(flow);
          if (!isQueued) continue;
          expected = expected.filter((one) => one !== flow);
          if (what === 'heard') expected.push(flow);
        }
        for (const [refusal, protocol] of [
          ['table-full', 'udp'],
          ['descriptors-exhausted', 'udp'],
          ['descriptors-exhausted', 'tcp'],
        ] as const) {
          assert.equal(table.evictable(refusal, protocol), expected[0]);
        }
        assert.equal(table.evictable('table-full', 'tcp'), undefined);
        assert.equal(table.evictable('source-cap', 'udp'), undefined);
      }),
    );
  });

  test('remove() and change() leave a flow alone that is not in the table', () => {
    const table = new FlowTable(LIMITS);
    const flow = aFlow(1, 'udp');
    table.remove(flow);
    table.change(flow, () => (flow.state = 'established'));
    assert.equal(flow.state, 'established');
    table.add(flow);
    table.remove(flow);
    table.remove(flow);
    assert.equal(table.size, 0);
  });

  test('page() walks all flows once, in pages, by filter', () => {
    const table = new FlowTable({ ...LIMITS, udpFlows: 100 });
    const flows = Array.from({ length: 10 }, (_, n) =>
      aFlow(n, n % 2 === 0 ? 'udp' : 'tcp', `10.0.0.${n % 6}`),
    );
    for (const flow of flows) {
      table.add(flow);
      table.change(flow, () => (flow.placement = placementOn(flow.id < 5 ? 'a' : 'b')));
    }
    table.remove(flows[4]!);
    const walk = (filter: Parameters<FlowTable['page']>[0], limit: number): readonly number[] => {
      const ids: number[] = [];
      let after: number | undefined = 0;
      while (after !== undefined) {
        const page: ReturnType<FlowTable['page']> = table.page(filter, after, limit);
        assert.ok(page.flows.length <= limit);
        ids.push(...page.flows.map(({ id }) => id));
        after = page.next;
      }
      return ids;
    };
    assert.deepEqual(walk({}, 4), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert.deepEqual(walk({}, 9), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert.deepEqual(walk({ protocol: 'udp' }, 2), [0, 2, 6, 8]);
    assert.deepEqual(walk({ backendId: 'b', protocol: 'tcp' }, 1), [5, 7, 9]);
    assert.deepEqual(walk({ rule: 'another' }, 1), []);
    const { sourcePort } = flows[7]!.tuple;
    assert.deepEqual(walk({ source: '10.0.0.1', sourcePort }, 1), [1, 7]);
    assert.deepEqual(walk({ source: '10.0.0.1', sourcePort, protocol: 'udp' }, 1), []);
    assert.deepEqual(walk({ source: '203.0.113.99' }, 1), []);
    assert.deepEqual(walk({ sourcePort: 65_535 }, 1), []);
    const late = aFlow(99, 'udp');
    table.add(late);
    assert.equal(late.tableIndex, 4);
  });
});
