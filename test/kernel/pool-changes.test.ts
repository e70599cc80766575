import assert from 'node:assert/strict';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { HUB_MODES, useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import type { Conditions } from '../support/state-factory.js';
import {
  BACKENDS,
  CLIENTS,
  FAMILIES,
  FRONTEND,
  type ConfigurationPlan,
  type Family,
} from '../support/topologies.js';
import { makeFlows, names, type Answer, type Flow, type Traffic } from '../support/traffic.js';

const FLOWS = campaign({ share: 120, whole: 300 });
const PROBE = { protocol: 'tcp', port: 80 };
const WITHOUT_B2 = { backends: ['b1', 'b3'] };
const DOWN = {
  probeDown: { health: { b2: 'down' } },
  adminDown: { admin: { b2: 'down' } },
} as const satisfies Record<string, Conditions>;

for (const mode of HUB_MODES) {
  describe(`flows while backends come and go, ${mode}`, { skip: whyNoNamespaces('ss') }, () => {
    const kernel = useHub(mode);
    let client: Traffic;
    let nextPort = 20_000;

    before(() => {
      client = kernel.lab.host('client').traffic();
    });
    beforeEach(async () => {
      await kernel.clear();
      await kernel.forget();
    });
    afterEach(() => client.close());

    const load = (plan: ConfigurationPlan = {}, conditions: Conditions = {}, removed: string[] = []) =>
      kernel.load({ probe: PROBE, ...plan }, conditions, { removed });

    function flows(protocol: Flow['protocol'], count: number, family: Family = 4): readonly Flow[] {
      nextPort += count;
      const to = { protocol, host: FRONTEND[family], port: 443 };
      return makeFlows(count, { ...to, source: CLIENTS[family], sourcePort: nextPort - count });
    }

    async function open(count: number, family: Family = 4): Promise<readonly Answer[]> {
      const answers = await client.open(flows('tcp', count, family));
      assert.deepEqual(new Set(names(answers)), new Set(BACKENDS));
      return answers;
    }

    async function assertNewOnesGoTo(backends: readonly string[], family: Family = 4): Promise<void> {
      for (const protocol of ['tcp', 'udp'] as const) {
        const answers = await client.ask(flows(protocol, 60, family));
        assert.deepEqual(new Set(names(answers)), new Set(backends), protocol);
      }
    }

    /** Those of b2 have this answer, all others the same as before. */
    function assertOnlyB2(after: readonly Answer[], before: readonly Answer[], by: string): void {
      assert.deepEqual(
        after,
        before.map((answer) => (answer.by === 'b2' ? { by } : answer)),
      );
    }

    test(`${FLOWS} of ${FLOWS} TCP flows stay when a backend leaves the table, and when it comes back`, async () => {
      await load();
      const before = await open(FLOWS);
      await load({}, DOWN.probeDown);
      assert.deepEqual(await client.again(), before);
      await assertNewOnesGoTo(['b1', 'b3']);
      await load();
      assert.deepEqual(await client.again(), before);
      await assertNewOnesGoTo(BACKENDS);
    });

    for (const family of FAMILIES) {
      test(`${FLOWS} of ${FLOWS} stay when a backend is removed from the configuration and added, IPv${family}`, async () => {
        const plan = { families: [family], rule: { flowPolicy: { removed: { tcp: 'persist' } } } };
        await load(plan);
        const before = await open(FLOWS, family);
        await load({ ...plan, ...WITHOUT_B2 }, {}, ['b2']);
        assert.deepEqual(await client.again(), before);
        await assertNewOnesGoTo(['b1', 'b3'], family);
        await load(plan);
        assert.deepEqual(await client.again(), before);
      });
    }

    test('flows stay where they are while the whole table is made anew', async () => {
      await load(WITHOUT_B2);
      const firstPort = nextPort;
      const before = await client.open(flows('tcp', 60));
      await load();
      const to = { frontend: 'hub4', backendPool: 'v4' };
      const rules = [
        { name: 'all4', ...to, haPorts: true, idleTimeout: { tcp: '5m' } },
        { name: 'web', ...to, protocol: 'tcp', frontendPort: 444, backendPort: 444 },
      ];
      await kernel.replace(kernel.state({ top: { rules } }));
      if (mode !== 'nat') await kernel.settle();
      assert.deepEqual(await client.again(), before);
      if (mode === 'nat') return;
      // Flows of tests before are still being closed.
      assert.equal((await kernel.pinned()).filter(({ clientPort }) => clientPort >= firstPort).length, 60);
    });

    for (const trigger of ['probeDown', 'adminDown'] as const) {
      test(`${trigger} with reset ends the TCP flows of that backend, and no other`, async () => {
        const rule = { flowPolicy: { [trigger]: { tcp: 'reset' } } };
        await load({ rule });
        const before = await open(90);
        await load({ rule }, DOWN[trigger]);
        assertOnlyB2(await client.again(), before, 'ECONNRESET');
      });

      test(`${trigger} with drop takes the packets of that backend alone`, async () => {
        const rule = { flowPolicy: { [trigger]: { tcp: 'drop', udp: 'drop' } } };
        await load({ rule });
        const before = await open(45);
        const datagrams = flows('udp', 45);
        const first = await client.ask(datagrams);
        await load({ rule }, DOWN[trigger]);
        assertOnlyB2(await client.again({ timeoutMs: 600 }), before, 'timeout');
        assertOnlyB2(await client.ask(datagrams, { timeoutMs: 600 }), first, 'timeout');
      });
    }

    test('rebalance moves the datagrams of that backend, which stay where they were moved to', async () => {
      const rule = { flowPolicy: { adminDown: { tcp: 'persist', udp: 'rebalance' } } };
      await load({ rule });
      const datagrams = flows('udp', 90);
      const before = await client.ask(datagrams);
      assert.deepEqual(await client.ask(datagrams), before);
      await load({ rule }, DOWN.adminDown);
      // As the process does: conntrack cannot change where a flow goes, it can forget it.
      if (mode === 'nat') await kernel.forget('-p udp --reply-src 10.2.0.12');
      const moved = await client.ask(datagrams);
      assert.deepEqual(new Set(names(moved)), new Set(['b1', 'b3']));
      for (const [index, answer] of before.entries()) {
        if (answer.by !== 'b2') assert.deepEqual(moved[index], answer);
      }
      await load({ rule });
      assert.deepEqual(await client.ask(datagrams), moved);
    });

    if (mode !== 'nat') return;

    test('a new flow avoids a backend that is out before the table says so', async () => {
      await load();
      const healthy = kernel.setupOf(kernel.state({ probe: PROBE }));
      const failing = kernel.setupOf(kernel.state({ probe: PROBE }, DOWN.probeDown));
      const out = [...failing.sets].filter(([name]) => !name.startsWith('to-'));
      await kernel.put({ ...healthy, sets: new Map([...healthy.sets, ...out]) });
      const served = names(await client.ask(flows('tcp', 200), { timeoutMs: 700, atOnce: 200 }));
      assert.ok(!served.includes('b2'));
      // A third is hashed again; one in 81 of all finds nobody in four tries, and is dropped.
      assert.ok(served.filter((name) => name === 'timeout').length < 12, served.join(' '));
    });

    test('reset reaches the backend too, when it is the backend that sends', async () => {
      const rule = { flowPolicy: { probeDown: { tcp: 'reset' } } };
      await load({ rule });
      const established = `ss -Htn state established ( sport = :443 and dport >= :${nextPort} )`;
      const openOnB2 = async (): Promise<number> =>
        (await kernel.lab.host('b2').must(established)).split('\n').filter(Boolean).length;
      await open(30);
      await client.again({ tick: true });
      assert.ok((await openOnB2()) > 0);
      await load({ rule }, DOWN.probeDown);
      await eventually(async () => (await openOnB2()) === 0, 10_000, 'b2 to have no flows');
    });
  });
}
