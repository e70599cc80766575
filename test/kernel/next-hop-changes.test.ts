import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { backendMarks, compileProgram, type RemovedBackend } from '../../src/planes/kernel/program.js';
import { nextHopSetup } from '../../src/planes/kernel/ebpf/next-hop.js';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import type { FlowAction } from '../../src/model/configuration.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';
import {
  crossingOf,
  NVA_HOSTS,
  NVAS,
  SERVERS,
  SPOKE_BLOCKS,
  SpokeLab,
  SPOKES,
} from '../support/spoke-lab.js';
import type { Conditions } from '../support/state-factory.js';

const FLOWS = 90;
const BLOCKS = SPOKE_BLOCKS.flatMap((text) => parseCidr(text) ?? []);

interface Wishes {
  readonly policy?: FlowAction;
  readonly allDown?: 'reset' | 'drop' | 'fail-open';
  readonly backends?: readonly object[];
  readonly rule?: object;
  readonly frontend?: object;
}

function backend(index: number, wishes: object = {}): object {
  return { name: NVAS[index], address: `${NVA_HOSTS[4]}${index + 1}`, ...wishes };
}

function configuration({ policy, allDown, backends, rule, frontend }: Wishes): object {
  const actions = { tcp: policy, udp: policy };
  return {
    frontends: [{ name: 'beyond', address: '0.0.0.0', ...frontend }],
    probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
    backendPools: [{ name: 'nvas', backends: backends ?? [backend(0), backend(1), backend(2)] }],
    rules: [
      {
        ...{ name: 'all', frontend: 'beyond', backendPool: 'nvas', probe: 'alive' },
        ...(rule ?? { haPorts: true }),
        ...(allDown === undefined ? {} : { allDown }),
        ...(policy === undefined
          ? {}
          : { flowPolicy: { preset: 'azure', probeDown: actions, removed: actions } }),
      },
    ],
  };
}

describe('next-hop while the pool changes', { skip: whyNoNamespaces('ss') }, () => {
  let lab: SpokeLab;
  let states: KernelStates;
  let client: LabClient;
  let firstPort = 20_000;

  before(async () => {
    states = await KernelStates.create();
    lab = await SpokeLab.create();
  });
  after(() => lab.close());
  beforeEach(async () => {
    client = lab.client('spoke-a');
    await lab.firewalls('stateful');
    await lab.forget();
    firstPort += 1000;
  });

  async function load(
    wishes: Wishes,
    conditions: Conditions = {},
    removed: readonly RemovedBackend[] = [],
  ): Promise<void> {
    const options = { mode: 'next-hop', spokes: BLOCKS } as const;
    await lab.load(
      nextHopSetup(compileProgram(states.state(configuration(wishes), options, conditions), removed)),
    );
  }

  function flows(protocol: 'tcp' | 'udp', count: number, port = 443, offset = 0): ClientFlow[] {
    return Array.from({ length: count }, (_, index) => ({
      ...{ protocol, host: SERVERS['spoke-z'][4], port, source: SPOKES['spoke-a'][4][index % 4] ?? '' },
      sourcePort: firstPort + offset + index,
    }));
  }

  /** Of each flow, the NVAs that have seen both directions, `n1`. */
  async function paths(of: readonly ClientFlow[]): Promise<string[]> {
    const crossed = await lab.crossed();
    return of.map((flow) => (crossed.get(crossingOf(flow)) ?? []).join('+'));
  }

  function tally(texts: readonly string[]): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const text of texts) counts[text] = (counts[text] ?? 0) + 1;
    return counts;
  }

  async function openFlows(): Promise<{
    open: readonly ClientFlow[];
    onSecond: number;
    where: readonly string[];
  }> {
    const open = flows('tcp', FLOWS);
    await client.do({ kind: 'open', flows: open });
    const where = await paths(open);
    const onSecond = where.filter((name) => name === 'n2').length;
    assert.ok(onSecond > 10, `${onSecond} of ${FLOWS} flows on n2`);
    return { open, onSecond, where };
  }

  test('flows stay where they are while an NVA is removed and comes back', async () => {
    await load({ policy: 'persist' });
    const { open, where } = await openFlows();
    const gone = { id: 'nvas/10.2.0.12', address: ipAddress('10.2.0.12'), pool: 'nvas' };
    await load({ policy: 'persist', backends: [backend(0), backend(2)] }, {}, [gone]);
    assert.deepEqual(tally((await client.do({ kind: 'ask' })).map(whoAnswered)), { 'spoke-z': FLOWS });
    const later = flows('tcp', FLOWS, 443, FLOWS);
    assert.deepEqual(tally((await client.once(...later)).map(whoAnswered)), { 'spoke-z': FLOWS });
    assert.deepEqual(
      Object.keys(tally(await paths(later))).sort(),
      ['n1', 'n3'],
      'new flows go to those that stay',
    );
    await load({ policy: 'persist' });
    assert.deepEqual(tally((await client.do({ kind: 'ask' })).map(whoAnswered)), { 'spoke-z': FLOWS });
    assert.deepEqual(await paths(open), where, 'stateful NVAs have seen nothing else');
  });

  test('rebalance moves TCP and UDP flows that NVAs without state can take up', async () => {
    await lab.firewalls('stateless');
    await load({ policy: 'rebalance' });
    await client.do({ kind: 'open', flows: flows('tcp', FLOWS) });
    const datagrams = flows('udp', FLOWS, 5060, FLOWS);
    await client.once(...datagrams);
    assert.ok((await onMark('n2')) > 20);
    await load({ policy: 'rebalance' }, { health: { n2: 'down' } });
    assert.deepEqual(tally((await client.do({ kind: 'ask' })).map(whoAnswered)), { 'spoke-z': FLOWS });
    assert.deepEqual(tally((await client.once(...datagrams)).map(whoAnswered)), { 'spoke-z': FLOWS });
    assert.equal(await onMark('n2'), 0, 'every flow has another mark');
  });

  /** Flows that the balancer has pinned to an NVA. */
  async function onMark(name: string): Promise<number> {
    const ids = NVAS.map((_, index) => `nvas/${NVA_HOSTS[4]}${index + 1}`);
    const mark = backendMarks('haports', ids).get(`nvas/${NVA_HOSTS[4]}${NVAS.indexOf(name as 'n1') + 1}`);
    const { stdout } = await lab.namespaces.run('lb', 'conntrack', ['-L', '--mark', String(mark)]);
    return stdout.split('\n').filter((line) => line !== '').length;
  }

  test('reset ends the flows of a dead NVA at both ends, and no other', async () => {
    await load({ policy: 'reset' });
    const { onSecond } = await openFlows();
    // Servers speak by themselves: what they send is refused too.
    await client.do({ kind: 'tick' });
    const atServer = await serverFlows();
    await load({ policy: 'reset' }, { health: { n2: 'down' } });
    const answers = tally((await client.do({ kind: 'ask' })).map(whoAnswered));
    assert.deepEqual(answers, { 'spoke-z': FLOWS - onSecond, ECONNRESET: onSecond });
    const deadline = Date.now() + 5000;
    while ((await serverFlows()) > atServer - onSecond && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal(await serverFlows(), atServer - onSecond);
  });

  async function serverFlows(): Promise<number> {
    const filter = ['-Htn', 'state', 'established', 'sport', '=', ':443'];
    return (await lab.namespaces.must('spoke-z', 'ss', filter)).split('\n').filter((line) => line !== '')
      .length;
  }

  test('drop lets the flows of a dead NVA hang, and no other', async () => {
    await load({ policy: 'drop' });
    const { onSecond } = await openFlows();
    await load({ policy: 'drop' }, { health: { n2: 'down' } });
    const answers = tally((await client.do({ kind: 'ask', timeoutMs: 1000 })).map(whoAnswered));
    assert.deepEqual(answers, { 'spoke-z': FLOWS - onSecond, timeout: onSecond });
  });

  const down = { health: { n1: 'down', n2: 'down', n3: 'down' } } as const;
  for (const [allDown, tcp, udp] of [
    ['reset', 'ECONNREFUSED', 'ECONNREFUSED'],
    ['drop', 'timeout', 'timeout'],
  ] as const) {
    test(`all down, ${allDown}: new flows end so, and none passes by`, async () => {
      await load({ allDown }, down);
      const some = [...flows('tcp', 4), ...flows('udp', 4, 5060)];
      const answers = await client.do({ kind: 'once', flows: some, timeoutMs: 500 });
      assert.deepEqual(answers, [tcp, tcp, tcp, tcp, udp, udp, udp, udp]);
    });
  }

  test('all down, fail-open: new flows cross an NVA all the same', async () => {
    await load({ allDown: 'fail-open' }, down);
    const some = flows('tcp', 30);
    assert.deepEqual(tally((await client.once(...some)).map(whoAnswered)), { 'spoke-z': 30 });
    assert.deepEqual(Object.keys(tally(await paths(some))).sort(), ['n1', 'n2', 'n3']);
  });

  test('weights and priorities: who has no slots gets no flows', async () => {
    await load({ backends: [backend(0, { weight: 3 }), backend(1), backend(2, { priority: 1 })] });
    const some = flows('tcp', 120);
    await client.once(...some);
    const { n1 = 0, n2 = 0, n3 = 0 } = tally(await paths(some));
    assert.equal(n1 + n2, 120);
    assert.equal(n3, 0);
    assert.ok(n1 > 70 && n1 < 110, `${n1} of 120, must be about 90`);
  });

  test('a rule that names a port: other traffic is routed on without an NVA', async () => {
    await load({ rule: { protocol: 'tcp', frontendPort: 443, backendPort: 443 } });
    const covered = flows('tcp', 30);
    const others = [...flows('tcp', 15, 80, 30), ...flows('udp', 15, 443, 30)];
    assert.deepEqual(tally((await client.once(...covered, ...others)).map(whoAnswered)), { 'spoke-z': 60 });
    assert.equal((await paths(covered)).filter((path) => /^n[123]$/.test(path)).length, 30);
    assert.deepEqual(tally(await paths(others)), { '': 30 });
  });

  test('without its policy rule no flow passes by the NVAs', async () => {
    await load({});
    const rules = await lab.namespaces.ip('lb', '-N rule show');
    for (const [, mark] of rules.matchAll(/fwmark (0x[0-9a-f]+)/g)) {
      await lab.namespaces.ip('lb', `rule del fwmark ${mark}`);
    }
    const answers = await client.do({ kind: 'once', flows: flows('udp', 5, 5060), timeoutMs: 500 });
    assert.deepEqual(tally(answers), { timeout: 5 });
    for (const line of rules.split('\n').filter((text) => text.includes('fwmark'))) {
      const [, fwmark, table] = /(fwmark \S+) lookup (\d+)/.exec(line) ?? [];
      await lab.namespaces.ip('lb', `rule add pref 680 ${fwmark} lookup ${table} protocol 104`);
    }
    const again = await client.once(...flows('udp', 5, 5060, 10));
    assert.deepEqual(tally(again.map(whoAnswered)), { 'spoke-z': 5 });
  });

  test("the balancer's own addresses and sources that are denied", async () => {
    await load({ frontend: { deny: ['10.10.0.3'] } });
    assert.match(
      (await lab.namespaces.run('spoke-a', 'ping', ['-c1', '-W2', '10.2.0.1'])).stdout,
      / 1 received/,
    );
    const one = { protocol: 'tcp', host: SERVERS['spoke-z'][4], port: 443, sourcePort: firstPort } as const;
    const answers = await client.once({ ...one, source: '10.10.0.3' }, { ...one, source: '10.10.0.4' });
    assert.deepEqual(answers.map(whoAnswered), ['ECONNREFUSED', 'spoke-z']);
  });
});
