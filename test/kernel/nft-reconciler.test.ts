import assert from 'node:assert/strict';
import { before, beforeEach, describe, test } from 'node:test';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { parsePortSet } from '../../src/model/ports.js';
import { captureSetup, type CapturedFrontend, type CaptureInput } from '../../src/planes/capture/table.js';
import { flushInstance } from '../../src/planes/netfilter/nft.js';
import type { KernelSetup } from '../../src/planes/netfilter/setup.js';
import { Reconciler } from '../../src/planes/netfilter/reconciler.js';
import { backendRule, backendTable } from '../../src/planes/netfilter/routing.js';
import { campaign } from '../support/campaign.js';
import { FakeClock } from '../support/fake-clock.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';

const block = parseCidr('240.0.0.0/4');
const skip = whyNoNamespaces();

const FOREIGN = `
table inet filter {
  set admins { type ipv4_addr; elements = { 192.0.2.1 } }
  chain input {
    type filter hook input priority 0; policy accept;
    ip saddr @admins tcp dport 22 counter accept
  }
}
table ip nat {
  chain prerouting { type nat hook prerouting priority -100; policy accept; tcp dport 1 dnat to 192.0.2.9:2; }
}
`;

function frontend(name: string, address: string, slot: number, tcp: string, udp: string): CapturedFrontend {
  const ports = { tcp: parsePortSet(tcp) ?? [], udp: parsePortSet(udp) ?? [] };
  return { name, address: ipAddress(address), ports, slot };
}

function setup(change: Partial<CaptureInput> = {}): KernelSetup {
  assert.ok(block);
  return captureSetup({
    instance: 'haports',
    plan: { udp: 'redirect', port: 61000, block },
    workers: 2,
    frontends: [
      frontend('hub', '10.9.0.1', 5, '1-21,23-443', '1-21,23-65535'),
      frontend('hub-6', '2001:db8::9', 5, '1-21,23-443', '1-21,23-65535'),
    ],
    udpEntrySeconds: 90,
    ...change,
  });
}

/** As with capture, and with the policy rule of a backend. */
function withBackend(): KernelSetup {
  const captured = setup();
  const rule = backendRule(6, 0x68000001, backendTable(captured.tag, 1));
  return { ...captured, routing: [...captured.routing, rule] };
}

describe('Reconciler, in a network namespace', { skip }, () => {
  const { box } = useLab({ box: {} }).hosts;
  const { tools } = box;
  let clock: FakeClock;
  let changes: string[];
  let reconciler: Reconciler;

  before(() => box.nft(FOREIGN));

  beforeEach(async () => {
    await flushInstance(tools, 'haports');
    await flushInstance(tools, 'other');
    clock = new FakeClock();
    changes = [];
    reconciler = make('haports');
  });

  function make(instance: string): Reconciler {
    return new Reconciler(
      { clock, tools, onChange: (change, evidence = '') => changes.push(`${change} ${evidence}`.trim()) },
      { instance },
    );
  }

  /** Fires the poll that is due and waits for the end of what it does, by asking for something that queues behind. */
  async function poll(byMs = 2000, wanted = setup()): Promise<void> {
    clock.advance(byMs);
    await reconciler.check(wanted).catch(() => undefined);
  }

  async function ruleset(): Promise<string> {
    return box.must('nft list ruleset');
  }

  /** All that routes, in every table, but for what the loopback has by itself. */
  async function routing(): Promise<string> {
    const parts = await Promise.all(
      ['-4 route show table all', '-6 route show table all', '-4 rule', '-6 rule', 'addr show dev lo'].map(
        (line) => box.ip(line),
      ),
    );
    return parts.join('');
  }

  test('want() puts table and routing in place, and remove() leaves nothing of it', async () => {
    const [rulesBefore, routingBefore] = [await ruleset(), await routing()];
    await reconciler.check(setup());
    assert.equal(await ruleset(), rulesBefore, 'check() changes nothing');
    await reconciler.want([{ setup: setup() }]);
    const rules = await ruleset();
    assert.ok(rules.startsWith(rulesBefore), 'tables of others are as they were');
    assert.match(rules, /dnat ip to tcp dport map @tcp4-hub:61000/);
    assert.match(await box.must('nft list map inet haports tcp4-hub'), /443 : 240\.5\.1\.187/);
    assert.match(await box.must('nft list map inet haports tcp6-hub-6'), /443 : fd68:6170:6f72:7473:5::1bb/);
    assert.match(await routing(), /local 240\.5\.0\.0\/16 dev lo table local proto 104/);
    assert.match(await routing(), /inet6 fd68:6170:6f72:7473:5::\/128 metric \d+ scope global deprecated/);
    assert.equal(reconciler.report().state, 'in-place');
    assert.match(reconciler.report().tool, /^nftables v/);

    await reconciler.remove();
    assert.equal(await ruleset(), rulesBefore);
    assert.equal(await routing(), routingBefore);
    assert.deepEqual(changes, ['installed', 'removed']);
  });

  test('want() adds the policy rule of a backend, and remove() takes it away', async () => {
    const routingBefore = await routing();
    await reconciler.want([{ setup: withBackend() }]);
    assert.match(await box.ip('-6 rule'), /fwmark 0x68000001 lookup/);
    await reconciler.want([{ setup: setup() }]);
    assert.doesNotMatch(await box.ip('-6 rule'), /fwmark/, 'what is no longer wanted goes');
    await reconciler.remove();
    assert.equal(await routing(), routingBefore);
  });

  test('want() only changes elements where only ports change', async () => {
    await reconciler.want([{ setup: setup() }]);
    const chain = await box.must('nft -a list chain inet haports steer');
    const ports = [
      frontend('hub', '10.9.0.1', 5, '2-21,23-442,3000', '7'),
      frontend('hub-6', '2001:db8::9', 5, '7', '8-9'),
    ];
    await reconciler.want([{ setup: setup({ frontends: ports }) }]);
    assert.equal(await box.must('nft -a list chain inet haports steer'), chain, 'the handles stayed');
    const map = await box.must('nft list map inet haports tcp4-hub');
    assert.match(map, /3000 : 240\.5\.11\.184/);
    assert.doesNotMatch(map, /\b(1|443) : /);
    assert.match(await box.must('nft list set inet haports udp4-hub'), /elements = \{ 7 \}/);
    assert.match(await box.must('nft list set inet haports udp6-hub-6'), /elements = \{ 8-9 \}/);
  });

  test('want() of the same again writes nothing', async () => {
    await reconciler.want([{ setup: setup() }]);
    const handles = await box.must('nft -a list ruleset');
    await reconciler.want([{ setup: setup() }]);
    assert.equal(await box.must('nft -a list ruleset'), handles);
    assert.deepEqual(changes, ['installed']);
  });

  test('want() replaces what a crashed process left, routing included', async () => {
    await reconciler.want([{ setup: setup({ frontends: [frontend('old', '10.9.0.2', 77, '1-9', '')] }) }]);
    const successor = make('haports');
    await successor.want([{ setup: setup() }]);
    assert.doesNotMatch(await ruleset(), /tcp4-old/);
    assert.doesNotMatch(await routing(), /240\.77\./);
  });

  test('want() changes nothing where the kernel refuses', async () => {
    await reconciler.want([{ setup: setup() }]);
    const [rules, routes] = [await box.must('nft -a list ruleset'), await routing()];
    const good = setup({ frontends: [frontend('new', '10.9.0.3', 78, '1-9', '')] });
    const bad = { ...good, structure: good.structure.replace('jump steer', 'jump nowhere') };
    await assert.rejects(reconciler.check(bad), { name: 'BalancerError' });
    await assert.rejects(reconciler.want([{ setup: bad }]), { name: 'BalancerError' });
    assert.equal(await box.must('nft -a list ruleset'), rules);
    assert.equal(await routing(), routes);
    assert.equal(reconciler.report().state, 'in-place');
    assert.equal(reconciler.report().failures, 1);
  });

  const DAMAGES: readonly (readonly [what: string, command: string, evidence: RegExp])[] = [
    ['a deleted table', 'nft delete table inet haports', /inet haports was gone/],
    ['an emptied chain', 'nft flush chain inet haports guard', /was altered/],
    ['an added rule', 'nft insert rule inet haports steer accept', /was altered/],
    ['an IPv4 route', 'ip route del local 240.5.0.0/16 dev lo', /240\.5\.0\.0\/16/],
    ['an IPv6 route', 'ip -6 route flush table local proto 104', /fd68.*\/80/],
    ['an address', 'ip addr del fd68:6170:6f72:7473:5::/128 dev lo', /addr add fd68/],
  ];
  for (const [what, command, evidence] of DAMAGES) {
    test(`it repairs ${what}`, async () => {
      await reconciler.want([{ setup: setup() }]);
      const [rules, routes] = [await ruleset(), await routing()];
      await box.must(command);
      assert.notDeepEqual([await ruleset(), await routing()], [rules, routes], 'the damage is done');
      await poll();
      assert.equal(await ruleset(), rules);
      assert.equal((await routing()).split('\n').sort().join('\n'), routes.split('\n').sort().join('\n'));
      assert.match(changes[1] ?? '', evidence);
      assert.equal(reconciler.report().repairs, 1);
      await poll();
      assert.equal(changes.length, 2, 'once is enough');
    });
  }

  test('it puts right a policy rule and the table after `nft flush ruleset`', async () => {
    await reconciler.want([{ setup: withBackend() }]);
    await box.nft('flush ruleset');
    await box.ip('-6 rule del pref 680');
    await poll();
    assert.match(await ruleset(), /map tcp4-hub/);
    assert.match(await box.ip('-6 rule'), /fwmark 0x68000001/);
    await box.nft(FOREIGN);
    await poll();
    assert.equal(reconciler.report().repairs, 1, 'a table of others is no damage');
  });

  test('it looks at the elements every five minutes', async () => {
    await reconciler.want([{ setup: setup() }]);
    await box.must('nft delete element inet haports tcp4-hub { 80, 443 }');
    await poll();
    assert.equal(reconciler.report().repairs, 0, 'not at every poll');
    await poll(300_000);
    assert.match(changes[1] ?? '', /tcp4-hub must have 80 and 1 more/);
    assert.match(await box.must('nft list map inet haports tcp4-hub'), /443 : 240\.5\.1\.187/);
  });

  test('want() of a change after damage replaces the whole table', async () => {
    await reconciler.want([{ setup: setup() }]);
    await box.must('nft delete table inet haports');
    await reconciler.want([{ setup: setup({ frontends: [frontend('hub', '10.9.0.1', 5, '80', '')] }) }]);
    assert.match(await box.must('nft list map inet haports tcp4-hub'), /80 : 240\.5\.0\.80/);
  });

  test('two instances keep out of each other, and each flush removes its own', async () => {
    const other = make('other');
    await reconciler.want([{ setup: setup() }]);
    await other.want([
      { setup: setup({ instance: 'other', frontends: [frontend('hub', '10.9.0.1', 5, '3000-3009', '')] }) },
    ]);
    assert.match(await box.must('ip route show table local proto 104'), /240.*\n.*240/, 'a route each');
    await poll();
    assert.deepEqual(changes, ['installed', 'installed']);
    const removed = await flushInstance(tools, 'other');
    assert.deepEqual(
      removed.map((line) => line.split(' metric')[0]),
      ['table inet haports-other', 'ip -4 route local 240.5.0.0/16 dev lo proto 104'],
    );
    await poll();
    assert.equal(reconciler.report().repairs, 0);
    assert.match(await ruleset(), /table inet haports \{/);
  });

  test('release() leaves everything, and looks after nothing', async () => {
    await reconciler.want([{ setup: setup() }]);
    await reconciler.release();
    assert.match(await ruleset(), /table inet haports/);
    await box.must('nft delete table inet haports');
    clock.advance(10_000);
    assert.equal(clock.pendingTimers, 0);
    assert.doesNotMatch(await ruleset(), /table inet haports/);
  });

  const everyPort = campaign({
    share: { title: '65,535 ports', addresses: ['2001:db8::9'] },
    whole: { title: '65,535 ports of two families', addresses: ['10.9.0.1', '2001:db8::9'] },
  });
  test(`${everyPort.title} are one transaction`, async (t) => {
    const all = everyPort.addresses.map((address, index) =>
      frontend(`hub-${index}`, address, 5, '1-65535', '1-65535'),
    );
    const wanted = setup({ frontends: all });
    const startMs = performance.now();
    await reconciler.want([{ setup: wanted }]);
    const installedMs = performance.now();
    await poll(2000, wanted);
    t.diagnostic(
      `install ${Math.round(installedMs - startMs)} ms, poll ${Math.round(performance.now() - installedMs)} ms`,
    );
    const elementsMs = performance.now();
    await poll(300_000, wanted);
    t.diagnostic(`look at all elements ${Math.round(performance.now() - elementsMs)} ms`);
    assert.deepEqual(changes, ['installed']);
    assert.equal(reconciler.report().failures, 0);
  });
});
