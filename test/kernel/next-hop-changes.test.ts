import assert from 'node:assert/strict';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import type { FlowAction } from '../../src/model/configuration.js';
import { eventually } from '../support/deadline.js';
import { crossedNvas, crossingOf, PROBE_PORT, setFirewalls, useSpokes } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import type { Conditions } from '../support/state-factory.js';
import { NVAS, SERVERS, SPOKES, type ConfigurationPlan } from '../support/topologies.js';
import { makeFlows, names, tally, type Flow, type Traffic } from '../support/traffic.js';

const FLOWS = 90;
const PROBE = { protocol: 'tcp', port: PROBE_PORT };
const N2_DOWN: Conditions = { health: { n2: 'down' } };
const ALL_DOWN: Conditions = { health: { n1: 'down', n2: 'down', n3: 'down' } };
const ALL_SERVED = { 'spoke-z': FLOWS };

describe('next-hop while the pool changes', { skip: whyNoNamespaces('ss', 'ping') }, () => {
  const kernel = useSpokes();
  const { lab } = kernel;
  const lb = lab.host('lb');
  let client: Traffic;
  let nextPort = 20_000;
  before(() => {
    client = lab.host('spoke-a').traffic();
  });
  beforeEach(async () => {
    await setFirewalls(lab, 'stateful');
    await forgetEverywhere();
  });
  afterEach(() => client.close());

  const forgetEverywhere = () =>
    Promise.all((['lb', ...NVAS] as const).map((name) => lab.host(name).run('conntrack -F')));

  const load = (plan: ConfigurationPlan = {}, conditions: Conditions = {}, removed: string[] = []) =>
    kernel.load({ probe: PROBE, ...plan }, conditions, { removed });

  /** The same for both protocols. */
  const policy = (action: FlowAction): ConfigurationPlan => {
    const actions = { tcp: action, udp: action };
    return { rule: { flowPolicy: { preset: 'azure', probeDown: actions, removed: actions } } };
  };

  function flows(protocol: Flow['protocol'], count: number, port = 443): readonly Flow[] {
    nextPort += count;
    const to = { protocol, host: SERVERS['spoke-z'][4], port };
    return makeFlows(count, { ...to, source: SPOKES['spoke-a'][4], sourcePort: nextPort - count });
  }

  const ask = async (asked: readonly Flow[]) => tally(names(await client.ask(asked)));
  const again = async (timeoutMs?: number) =>
    tally(names(await client.again(timeoutMs === undefined ? {} : { timeoutMs })));

  /** Of each flow, the NVAs that have seen both directions, `n1`. */
  async function paths(of: readonly Flow[]): Promise<string[]> {
    const crossed = await crossedNvas(lab);
    return of.map((flow) => (crossed.get(crossingOf(flow)) ?? []).join('+'));
  }

  async function openFlows() {
    const open = flows('tcp', FLOWS);
    await client.open(open);
    const where = await paths(open);
    const { n2: onSecond = 0 } = tally(where);
    assert.ok(onSecond > 10, `${onSecond} of ${FLOWS} flows on n2`);
    return { open, onSecond, where };
  }

  test('flows stay where they are while an NVA is removed and comes back', async () => {
    await load(policy('persist'));
    const { open, where } = await openFlows();
    await load({ ...policy('persist'), backends: ['n1', 'n3'] }, {}, ['n2']);
    assert.deepEqual(await again(), ALL_SERVED);
    const later = flows('tcp', FLOWS);
    assert.deepEqual(await ask(later), ALL_SERVED);
    assert.deepEqual(
      Object.keys(tally(await paths(later))).sort(),
      ['n1', 'n3'],
      'new flows go to those that stay',
    );
    await load(policy('persist'));
    assert.deepEqual(await again(), ALL_SERVED);
    assert.deepEqual(await paths(open), where, 'stateful NVAs have seen nothing else');
  });

  test('rebalance moves TCP and UDP flows that NVAs without state can take up', async () => {
    await setFirewalls(lab, 'stateless');
    const state = await load(policy('rebalance'));
    const mark = compileProgram(state).backends.find(({ id }) => id === 'v4/10.2.0.12')?.mark;
    /** Flows that the balancer has pinned to n2. */
    const onN2 = async (): Promise<number> =>
      (await lb.run(`conntrack -L --mark ${mark}`)).stdout.split('\n').filter(Boolean).length;
    await client.open(flows('tcp', FLOWS));
    const datagrams = flows('udp', FLOWS, 5060);
    await client.ask(datagrams);
    assert.ok((await onN2()) > 20);
    await load(policy('rebalance'), N2_DOWN);
    assert.deepEqual(await again(), ALL_SERVED);
    assert.deepEqual(await ask(datagrams), ALL_SERVED);
    assert.equal(await onN2(), 0, 'every flow has another mark');
  });

  test('reset ends the flows of a dead NVA at both ends, and no other', async () => {
    await load(policy('reset'));
    const { onSecond } = await openFlows();
    const atServer = async (): Promise<number> =>
      (await lab.host('spoke-z').must('ss -Htn state established sport = :443')).split('\n').filter(Boolean)
        .length;
    // Servers speak by themselves: what they send is refused too.
    await client.again({ tick: true });
    const before = await atServer();
    await load(policy('reset'), N2_DOWN);
    assert.deepEqual(await again(), { 'spoke-z': FLOWS - onSecond, ECONNRESET: onSecond });
    await eventually(async () => (await atServer()) <= before - onSecond, 10_000, 'the ends at the server');
    assert.equal(await atServer(), before - onSecond);
  });

  test('drop lets the flows of a dead NVA hang, and no other', async () => {
    await load(policy('drop'));
    const { onSecond } = await openFlows();
    await load(policy('drop'), N2_DOWN);
    assert.deepEqual(await again(1000), { 'spoke-z': FLOWS - onSecond, timeout: onSecond });
  });

  for (const [allDown, ends] of [
    ['reset', 'ECONNREFUSED'],
    ['drop', 'timeout'],
  ] as const) {
    test(`all down, ${allDown}: new flows end so, and none passes by`, async () => {
      await load({ rule: { allDown } }, ALL_DOWN);
      const answers = await client.ask([...flows('tcp', 4), ...flows('udp', 4, 5060)], { timeoutMs: 500 });
      assert.deepEqual(tally(names(answers)), { [ends]: 8 });
    });
  }

  test('all down, fail-open: new flows cross an NVA all the same', async () => {
    await load({ rule: { allDown: 'fail-open' } }, ALL_DOWN);
    const some = flows('tcp', 30);
    assert.deepEqual(await ask(some), { 'spoke-z': 30 });
    assert.deepEqual(Object.keys(tally(await paths(some))).sort(), ['n1', 'n2', 'n3']);
  });

  test('weights and priorities: who has no slots gets no flows', async () => {
    await load({ backend: { n1: { weight: 3 }, n3: { priority: 1 } } });
    const some = flows('tcp', 120);
    await client.ask(some);
    const { n1 = 0, n2 = 0, n3 = 0 } = tally(await paths(some));
    assert.equal(n1 + n2, 120);
    assert.equal(n3, 0);
    assert.ok(n1 > 70 && n1 < 110, `${n1} of 120, must be about 90`);
  });

  test('a rule that names a port: other traffic is routed on without an NVA', async () => {
    await load({ rule: { haPorts: undefined, protocol: 'tcp', frontendPort: 443, backendPort: 443 } });
    const covered = flows('tcp', 30);
    const others = [...flows('tcp', 15, 80), ...flows('udp', 15, 443)];
    assert.deepEqual(await ask([...covered, ...others]), { 'spoke-z': 60 });
    assert.equal((await paths(covered)).filter((path) => /^n[123]$/.test(path)).length, 30);
    assert.deepEqual(tally(await paths(others)), { '': 30 });
  });

  test('without its policy rule no flow passes by the NVAs', async () => {
    await load();
    const rules = [...(await lb.ip('-N rule show')).matchAll(/(fwmark 0x[0-9a-f]+\S*) lookup (\d+)/g)];
    assert.ok(rules.length > 0);
    for (const [, fwmark] of rules) await lb.ip(`rule del ${fwmark}`);
    const lost = await client.ask(flows('udp', 5, 5060), { timeoutMs: 500 });
    assert.deepEqual(tally(names(lost)), { timeout: 5 });
    for (const [, fwmark, table] of rules) {
      await lb.ip(`rule add pref 680 ${fwmark} lookup ${table} protocol 104`);
    }
    assert.deepEqual(await ask(flows('udp', 5, 5060)), { 'spoke-z': 5 });
  });

  test("the balancer's own addresses and sources that are denied", async () => {
    await load({ frontend: { deny: ['10.10.0.3'] } });
    assert.match((await lab.host('spoke-a').run('ping -c1 -W2 10.2.0.1')).stdout, / 1 received/);
    const [, denied, allowed] = flows('tcp', 3);
    assert.deepEqual(names(await client.ask([denied!, allowed!])), ['ECONNREFUSED', 'spoke-z']);
  });
});
