import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { compileProgram, type RemovedBackend } from '../../src/planes/kernel/program.js';
import { ACTED } from '../../src/planes/kernel/nat/policies.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import { ipAddress } from '../../src/model/address.js';
import type { KernelSetup } from '../../src/planes/netfilter/setup.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';
import type { Conditions } from '../support/state-factory.js';

const skip = whyNoNamespaces();
const ALL = ['b1', 'b2', 'b3'];

interface Situation extends Conditions {
  /** Host parts of the pool's backends. @default all three */
  readonly members?: readonly string[];
  readonly removed?: readonly string[];
  readonly rule?: object;
}

function member(name: string): { readonly name: string; readonly address: string } {
  return { name, address: `10.2.0.1${name.slice(1)}` };
}

describe('natSetup() when backends come and go', { skip }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;
  let nextPort = 20_000;

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
  });
  after(() => lab.close());
  beforeEach(async () => {
    await lab.forget();
    client = lab.client();
  });

  function setupOf({ members = ALL, removed = [], rule = {}, ...conditions }: Situation): KernelSetup {
    const raw = {
      frontends: [{ name: 'hub', address: FRONTEND[4] }],
      probes: [{ name: 'alive', protocol: 'tcp', port: 80 }],
      backendPools: [{ name: 'nvas', backends: members.map(member) }],
      rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true, ...rule }],
    };
    const gone = removed.map((name): RemovedBackend => {
      const address = ipAddress(member(name).address);
      return { id: `nvas/${address.text}`, address, pool: 'nvas' };
    });
    return natSetup(compileProgram(states.state(raw, {}, conditions), gone));
  }

  function flowsOf(protocol: 'tcp' | 'udp', count: number): ClientFlow[] {
    return Array.from({ length: count }, (_, index) => ({
      protocol,
      host: FRONTEND[4],
      port: 443,
      source: CLIENTS[4][index % 4] ?? '',
      sourcePort: nextPort++,
    }));
  }

  async function open(count: number): Promise<readonly string[]> {
    const answers = await client.do({ kind: 'open', flows: flowsOf('tcp', count) });
    assert.deepEqual([...new Set(answers.map(whoAnswered))].sort(), ALL);
    return answers;
  }

  async function whoTakesNew(protocol: 'tcp' | 'udp', count = 60): Promise<string[]> {
    const answers = await client.once(...flowsOf(protocol, count));
    return [...new Set(answers.map(whoAnswered))].sort();
  }

  /** Flows from that port of a client on. */
  async function openOnB2(fromPort: number): Promise<number> {
    const filter = ['state', 'established', `( sport = :443 and dport >= :${fromPort} )`];
    const listing = await lab.namespaces.must('b2', 'ss', ['-Htn', ...filter]);
    return listing.split('\n').filter((line) => line !== '').length;
  }

  test('300 of 300 TCP flows stay when a backend leaves the table, and when it comes back', async () => {
    await lab.load(setupOf({}));
    const before = await open(300);
    await lab.load(setupOf({ health: { b2: 'down' } }));
    assert.deepEqual(await client.do({ kind: 'ask' }), before);
    assert.deepEqual(await whoTakesNew('tcp'), ['b1', 'b3']);
    assert.deepEqual(await whoTakesNew('udp'), ['b1', 'b3']);
    await lab.load(setupOf({}));
    assert.deepEqual(await client.do({ kind: 'ask' }), before);
    assert.deepEqual(await whoTakesNew('tcp'), ALL);
  });

  test('300 of 300 stay when backends are removed from and added to the configuration', async () => {
    const persist = { flowPolicy: { removed: { tcp: 'persist' } } };
    await lab.load(setupOf({ rule: persist }));
    const before = await open(300);
    await lab.load(setupOf({ rule: persist, members: ['b1', 'b3'], removed: ['b2'] }));
    assert.deepEqual(await client.do({ kind: 'ask' }), before);
    assert.deepEqual(await whoTakesNew('tcp'), ['b1', 'b3']);
    await lab.load(setupOf({ rule: persist }));
    assert.deepEqual(await client.do({ kind: 'ask' }), before);
  });

  test('a new structure leaves the flows where they are', async () => {
    await lab.load(setupOf({}));
    const before = await open(60);
    await lab.load(setupOf({ rule: { idleTimeout: { tcp: '5m', udp: '31s' } } }));
    assert.deepEqual(await client.do({ kind: 'ask' }), before);
  });

  test('a new flow avoids a backend that is out before the table says so', async () => {
    const healthy = setupOf({});
    const failing = setupOf({ health: { b2: 'down' } });
    await lab.load(healthy);
    const out = [...failing.sets].filter(([name]) => !name.startsWith('to-'));
    await lab.load({ ...healthy, sets: new Map([...healthy.sets, ...out]) });
    const answers = await client.do({ kind: 'once', flows: flowsOf('tcp', 200), timeoutMs: 700 });
    const served = answers.map(whoAnswered);
    assert.ok(!served.includes('b2'));
    // A third is hashed again; one in 81 of all finds nobody in four tries, and is dropped.
    assert.ok(served.filter((name) => name === 'timeout').length < 12, served.join(' '));
  });

  for (const trigger of ['probe-down', 'admin-down'] as const) {
    test(`reset on ${trigger} ends the flows of that backend, from either side`, async () => {
      const rule = {
        flowPolicy: { [trigger === 'probe-down' ? 'probeDown' : 'adminDown']: { tcp: 'reset' } },
      };
      await lab.load(setupOf({ rule }));
      const before = await open(90);
      const down =
        trigger === 'probe-down' ? { health: { b2: 'down' as const } } : { admin: { b2: 'down' as const } };
      await lab.load(setupOf({ rule, ...down }));
      const after = await client.do({ kind: 'ask' });
      for (const [index, answer] of before.entries()) {
        assert.equal(after[index], whoAnswered(answer) === 'b2' ? 'ECONNRESET' : answer);
      }
    });
  }

  test('reset reaches the backend too, when it is the backend that sends', async () => {
    const rule = { flowPolicy: { probeDown: { tcp: 'reset' } } };
    await lab.load(setupOf({ rule }));
    const fromPort = nextPort;
    await open(30);
    await client.do({ kind: 'tick' });
    assert.ok((await openOnB2(fromPort)) > 0);
    await lab.load(setupOf({ rule, health: { b2: 'down' } }));
    const deadlineMs = Date.now() + 5000;
    while ((await openOnB2(fromPort)) > 0) assert.ok(Date.now() < deadlineMs, 'b2 still has flows');
  });

  test('drop takes the packets of that backend alone', async () => {
    const rule = { flowPolicy: { probeDown: { tcp: 'drop', udp: 'drop' } } };
    await lab.load(setupOf({ rule }));
    const before = await open(45);
    const datagrams = flowsOf('udp', 45);
    const first = await client.once(...datagrams);
    await lab.load(setupOf({ rule, health: { b2: 'down' } }));
    const after = await client.do({ kind: 'ask', timeoutMs: 600 });
    const second = await client.do({ kind: 'once', flows: datagrams, timeoutMs: 600 });
    for (const [index, answer] of before.entries()) {
      assert.equal(after[index], whoAnswered(answer) === 'b2' ? 'timeout' : answer);
    }
    for (const [index, answer] of first.entries()) {
      assert.equal(second[index], whoAnswered(answer) === 'b2' ? 'timeout' : answer);
    }
  });

  test('UDP flows move once conntrack forgets them, others stay', async () => {
    await lab.load(setupOf({}));
    const flows = flowsOf('udp', 90);
    const before = await client.once(...flows);
    assert.deepEqual(await client.once(...flows), before);
    await lab.load(setupOf({ health: { b2: 'down' } }));
    await lab.forget('-p', 'udp', '--reply-src', '10.2.0.12');
    const after = await client.once(...flows);
    for (const [index, answer] of before.entries()) {
      if (whoAnswered(answer) === 'b2') assert.notEqual(whoAnswered(after[index]), 'b2');
      else assert.equal(after[index], answer);
    }
  });

  test('only elements differ, and the sets of actions are empty while everybody may keep his flows', () => {
    const healthy = setupOf({});
    assert.equal(healthy.sets.get(ACTED)?.size, 0);
    assert.equal(setupOf({ health: { b1: 'down', b2: 'down', b3: 'down' } }).structure, healthy.structure);
  });
});
