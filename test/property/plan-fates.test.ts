import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { planChange } from '../../src/whatif/plan.js';
import { EventQueue } from '../../src/flows/event-queue.js';
import { FlowManager } from '../../src/flows/flow-manager.js';
import { Flow, flowRecord } from '../../src/flows/flow.js';
import type { Protocol } from '../../src/model/address.js';
import type { FlowRecord } from '../../src/model/flow.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { FlowAction, FlowPolicy, Rule } from '../../src/model/configuration.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { campaign } from '../support/campaign.js';
import { FakeClock } from '../support/fake-clock.js';
import { testState, type RuleParts, type TestBackend } from '../support/forwarding-state.js';
import { aTuple, placementOn, RecordingTransport } from '../unit/flows/flow-fixtures.js';

const picker = new Picker(await createHasher());
const ADDRESSES = ['10.0.0.1', '10.0.0.2', '10.0.0.3'];
const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp'];

const actions = fc.constantFrom<FlowAction>('persist', 'rebalance', 'reset', 'drop');
const pair = fc.record({ tcp: actions, udp: actions });
const policies: fc.Arbitrary<FlowPolicy> = fc.record({
  'probe-down': pair,
  'admin-down': pair,
  removed: pair,
  'drain-deadline': pair,
  idle: pair,
});

/** What has become of a backend: absent, fine, or invalid for some reason. */
const fortunes = fc.constantFrom<'gone' | 'fine' | 'probe-down' | 'admin-down' | 'drain-deadline'>(
  ...(['gone', 'fine', 'probe-down', 'admin-down', 'drain-deadline'] as const),
);

function backendsAfter(fates: readonly string[]): TestBackend[] {
  return ADDRESSES.flatMap((address, index): TestBackend[] => {
    const fate = fates[index];
    if (fate === 'gone') return [];
    if (fate === 'probe-down' || fate === 'admin-down' || fate === 'drain-deadline') {
      return [{ address, valid: false, invalidBecause: fate }];
    }
    return [{ address }];
  });
}

/** What the plane's own enforcement does to one flow, seen from outside: what its transport is told. */
function enforced(before: ForwardingState, after: ForwardingState) {
  const clock = new FakeClock();
  const manager = new FlowManager(
    { clock, events: new EventQueue(clock) },
    { flowEvents: false, worker: 0, workers: 1 },
    before,
  );
  const [slot] = manager.slotsFor(before.configuration);
  assert.ok(slot !== undefined);
  const flows = PROTOCOLS.flatMap((protocol) =>
    ADDRESSES.map((address, index) => {
      const transport = new RecordingTransport();
      const flow = manager.open(aTuple(protocol, '192.0.2.1', 4000 + index), slot, transport);
      assert.ok(flow instanceof Flow);
      manager.place(flow, placementOn(`nvas/${address}`));
      manager.establish(flow);
      return { record: flowRecord(flow, 0), transport };
    }),
  );
  manager.apply(after);
  clock.advance(1000);
  manager.stop();
  const done = { stay: 0, move: 0, reset: 0, drop: 0 };
  for (const { transport } of flows) {
    if (transport.calls.includes('unpin')) done.move++;
    else if (transport.calls.includes('blackhole')) done.drop++;
    else if (transport.calls.some((call) => call.startsWith('close'))) done.reset++;
    else done.stay++;
  }
  return { done, records: flows.map(({ record }) => record) };
}

async function* asynchronously(records: readonly FlowRecord[]): AsyncGenerator<FlowRecord> {
  for (const record of records) yield await Promise.resolve(record);
}

test('planChange() foretells what the userspace plane does to its flows', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fortunes, { minLength: 3, maxLength: 3 }),
      policies,
      fc.constantFrom<Rule['allDown']>('reset', 'drop', 'fail-open'),
      fc.constantFrom<RuleParts>(
        {},
        { name: 'renamed' },
        { name: 'renamed', protocols: ['tcp'] },
        { name: 'renamed', backendPool: 'others' },
      ),
      async (fates, flowPolicy, allDown, change) => {
        const before = testState({ backends: ADDRESSES });
        const after = testState({
          backends: backendsAfter(fates),
          digest: 'b'.repeat(64),
          failOpen: true,
          rule: { flowPolicy, allDown, ...change },
        });
        const { done, records } = enforced(before, after);
        const report = await planChange({ before, after, flows: asynchronously(records), picker });
        assert.deepEqual(report.flows, done);
      },
    ),
    { numRuns: campaign({ share: 50, whole: 500 }) },
  );
});
