import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { eventually, within } from '../support/deadline.js';
import { MAIN, type HaportsProcess } from '../support/haports-process.js';
import { serveFrontends } from '../support/kernel-lab.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { ARM, BACKENDS, CLIENTS, configurationFor, FRONTEND, HUB, hub } from '../support/topologies.js';
import { makeFlows, names, type Traffic } from '../support/traffic.js';

const PORT = 7000;

describe('haports run with floating IP', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(hub('direct'));
  const { lb } = lab.hosts;
  let client: Traffic;
  let sourcePort = 30_000;
  before(async () => {
    await Promise.all(BACKENDS.map((name) => serveFrontends(lab.host(name), [PORT])));
    client = lab.host('client').traffic();
  });

  function run(kernel: object): Promise<HaportsProcess> {
    const probe = { protocol: 'tcp', port: PORT, interval: '1s', timeout: '900ms', threshold: 1 };
    const dataPlane = { kind: 'kernel', kernel };
    return lb.haports(configurationFor(HUB, { dataPlane, probe, rule: { floatingIp: true } }));
  }

  async function serving(): Promise<ReadonlySet<string>> {
    sourcePort += 20;
    const flows = makeFlows(20, { host: FRONTEND[4], port: PORT, source: CLIENTS[4][0]!, sourcePort });
    return new Set(names(await client.ask(flows, { timeoutMs: 1000 })));
  }

  async function eventuallyServes(wanted: readonly string[], timeoutMs: number): Promise<void> {
    const served = async (): Promise<true> => {
      assert.deepEqual(await serving(), new Set(wanted));
      return true;
    };
    await eventually(served, timeoutMs, `answers of ${wanted.join()}`);
  }

  const tables = () => lb.must('nft list tables');

  test('serves, outlives its process, changes its mode, and is flushed', async () => {
    const first = await run({ mode: 'floating-l2', interface: ARM });
    await eventuallyServes(BACKENDS, 15_000);
    assert.equal(await tables(), 'table netdev haports\n');
    await first.kill();
    assert.deepEqual(await serving(), new Set(BACKENDS), 'without a process');
    const second = await run({ mode: 'floating-routed' });
    await eventually(async () => (await tables()) === 'table inet haports\n', 15_000, 'the other table');
    await eventuallyServes(BACKENDS, 5000);
    await lab.host('router').ip('link set b2 down');
    await eventuallyServes(['b1', 'b3'], 10_000);
    await second.kill();
    assert.match(await lb.must([process.execPath, MAIN, 'kernel', 'flush']), /^Removed table inet haports\n/);
    assert.equal(await tables(), '');
    assert.doesNotMatch(await lb.ip('rule'), /fwmark/);
  });

  test('a stop that takes all away waits for a silent connection, and ends when that is closed', async () => {
    const haports = await run({ mode: 'floating-l2', interface: ARM, onStop: 'remove' });
    await eventuallyServes(['b1', 'b3'], 15_000);
    const open = lab.host('client').traffic();
    const flow = {
      protocol: 'tcp',
      host: FRONTEND[4],
      port: PORT,
      source: CLIENTS[4][1]!,
      sourcePort,
    } as const;
    const before = await open.open([flow]);
    haports.child.kill('SIGTERM');
    await eventually(async () => (await serving()).has('ECONNREFUSED'), 10_000, 'no new flows');
    // It asks for something that may take long: the balancer sees no answers.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.deepEqual(await open.again(), before);
    const closedAtMs = performance.now();
    open.end();
    await within(haports.exit, 10_000, 'the process to end');
    assert.ok(performance.now() - closedAtMs < 8000, 'long before the deadline of 30 s');
    assert.equal(await tables(), '');
  });
});
