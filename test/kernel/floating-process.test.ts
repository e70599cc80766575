import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, within } from '../support/deadline.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type LabClient } from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const MAIN = fileURLToPath(new URL('../../src/main.js', import.meta.url));

describe('haports run with floating IP', { skip }, () => {
  let lab: FloatingLab;
  let client: LabClient;
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-floating-'));
    lab = await FloatingLab.create();
    client = lab.client();
  });
  after(async () => {
    await lab.close();
    await rm(folder, { recursive: true });
  });

  async function run(kernel: object): Promise<ChildProcess> {
    const file = join(folder, 'config.json');
    const backends = BACKENDS.map((name) => ({ name, address: `10.2.0.1${name.slice(1)}` }));
    const config = {
      dataPlane: { kind: 'kernel', kernel },
      probes: [
        { name: 'alive', protocol: 'tcp', port: PORT, interval: '1s', timeout: '900ms', threshold: 1 },
      ],
      frontends: [{ name: 'hub', address: FRONTEND[4] }],
      backendPools: [{ name: 'nvas', backends }],
      rules: [
        {
          ...{ name: 'all', frontend: 'hub', backendPool: 'nvas', probe: 'alive' },
          ...{ haPorts: true, floatingIp: true },
        },
      ],
    };
    await writeFile(file, JSON.stringify(config));
    return lab.namespaces.spawn('lb', process.execPath, [MAIN, 'run', '-c', file], { stdio: 'ignore' });
  }

  async function end(child: ChildProcess): Promise<void> {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  let sourcePort = 30_000;
  async function names(): Promise<ReadonlySet<string>> {
    const flows = Array.from({ length: 20 }, () => ({
      ...{ protocol: 'tcp' as const, host: FRONTEND[4], port: PORT },
      ...{ source: CLIENTS[4][0], sourcePort: sourcePort++ },
    }));
    return new Set((await client.do({ kind: 'once', flows, timeoutMs: 1000 })).map(whoAnswered));
  }

  async function eventuallyServes(wanted: readonly string[], timeoutMs: number): Promise<void> {
    const served = async (): Promise<true> => {
      assert.deepEqual(await names(), new Set(wanted));
      return true;
    };
    await eventually(served, timeoutMs, `answers of ${wanted.join()}`);
  }

  async function tables(): Promise<string> {
    return lab.namespaces.must('lb', 'nft', ['list', 'tables']);
  }

  test('serves, outlives its process, changes its mode, and is flushed', async () => {
    const first = await run({ mode: 'floating-l2', interface: DEVICE });
    await eventuallyServes(BACKENDS, 15_000);
    assert.equal(await tables(), 'table netdev haports\n');
    await end(first);
    assert.deepEqual(await names(), new Set(BACKENDS), 'without a process');
    const second = await run({ mode: 'floating-routed' });
    await eventually(async () => (await tables()) === 'table inet haports\n', 15_000, 'the other table');
    await eventuallyServes(BACKENDS, 5000);
    await lab.namespaces.ip('router', 'link set b2 down');
    await eventuallyServes(['b1', 'b3'], 10_000);
    await end(second);
    const flushed = await lab.namespaces.must('lb', process.execPath, [MAIN, 'kernel', 'flush']);
    assert.match(flushed, /^Removed table inet haports\n/);
    assert.equal(await tables(), '');
    assert.doesNotMatch(await lab.namespaces.must('lb', 'ip', ['rule']), /fwmark/);
  });

  test('a stop that takes all away waits for a silent connection, and ends when that is closed', async () => {
    const child = await run({ mode: 'floating-l2', interface: DEVICE, onStop: 'remove' });
    await eventuallyServes(['b1', 'b3'], 15_000);
    const open = lab.client();
    const flow = { protocol: 'tcp' as const, host: FRONTEND[4], port: PORT, source: CLIENTS[4][1] };
    const [who = ''] = await open.do({ kind: 'open', flows: [{ ...flow, sourcePort: sourcePort++ }] });
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    await eventually(async () => (await names()).has('ECONNREFUSED'), 10_000, 'no new flows');
    // It asks for something that may take long: the balancer sees no answers.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.deepEqual((await open.do({ kind: 'ask' })).map(whoAnswered), [whoAnswered(who)]);
    const closedAtMs = performance.now();
    open.end();
    await within(exit, 10_000, 'the process to end');
    assert.ok(performance.now() - closedAtMs < 8000, 'long before the deadline of 30 s');
    assert.equal(await tables(), '');
  });
});
