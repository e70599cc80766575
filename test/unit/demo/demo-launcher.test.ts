import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { demoBackends, startDemoBackends } from '../../../src/demo/demo.js';
import { ipAddress } from '../../../src/model/address.js';
import type { Configuration } from '../../../src/model/configuration.js';
import { installedFile } from '../../../src/runtime/files.js';
import { relinked } from '../../support/forwarding-state.js';
import { freePort } from './free-port.js';
import { sampleConfiguration, sampleRule } from '../observe/sample-state.js';

/** Two backends that nobody else in these tests uses, one port each, health on a port of its own. */
function configuration(port: number, healthPort: number): Configuration {
  const base = sampleConfiguration();
  const pool = base.backendPools[0]!;
  const backends = pool.backends.map((backend, index) => {
    const address = ipAddress(`127.0.0.${41 + index}`);
    return { ...backend, id: `nvas/${address.text}`, address };
  });
  return relinked({
    ...base,
    probes: base.probes.map((probe) => ({ ...probe, port: healthPort })),
    backendPools: [{ ...pool, backends }],
    rules: [{ ...sampleRule('ha-ports', 'hub'), ports: [{ first: port, last: port }] }],
  });
}

/** Whether a process runs. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function untilGone(pid: number): Promise<void> {
  const deadlineMs = performance.now() + 5000;
  while (isAlive(pid)) {
    assert.ok(performance.now() < deadlineMs, `Process ${pid} is still there`);
    await delay(10);
  }
}

describe('demoBackends()', () => {
  test('demoBackends() gives each address the ports of all rules that lead to it', () => {
    const base = sampleConfiguration();
    const shifted = { ...sampleRule('tls', 'hub'), ports: [{ first: 443, last: 443 }], portOffset: 6000 };
    const found = demoBackends(relinked({ ...base, rules: [...base.rules, shifted] }));
    assert.deepEqual(
      found.map(({ backendId, name, ports, healthPort }) => ({ backendId, name, ports, healthPort })),
      ['1', '2'].map((number) => ({
        backendId: `nvas/127.0.0.1${number}`,
        name: `nva-${number}`,
        ports: [
          { first: 6443, last: 6443 },
          { first: 8000, last: 8099 },
        ],
        healthPort: 9000,
      })),
    );
  });
});

describe('startDemoBackends()', () => {
  test('each backend is a process that serves, can be frozen and killed, and is gone after stop()', async () => {
    const [port, healthPort] = [await freePort('127.0.0.41'), await freePort('127.0.0.41')];
    const demo = await startDemoBackends(configuration(port, healthPort));
    try {
      assert.deepEqual(
        demo.nvas.map(({ name }) => name),
        ['nva-1', 'nva-2'],
      );
      for (const { name, address } of demo.nvas) {
        const answer = await fetch(`http://${address.text}:${port}/`);
        assert.match(await answer.text(), new RegExp(`^hello from ${name}, port ${port}`));
        assert.equal((await fetch(`http://${address.text}:${healthPort}/healthz`)).status, 200);
      }
      const [killed, frozen] = demo.nvas;
      process.kill(killed!.pid, 'SIGKILL');
      await untilGone(killed!.pid);
      process.kill(frozen!.pid, 'SIGSTOP');
    } finally {
      await demo.stop();
    }
    await demo.stop();
    for (const { pid } of demo.nvas) assert.equal(isAlive(pid), false);
  });

  test('a port in use is reported, and no process is left', async () => {
    const [port, healthPort] = [await freePort('127.0.0.42'), await freePort('127.0.0.42')];
    const taken = createServer().listen(port, '127.0.0.42');
    await once(taken, 'listening');
    try {
      await assert.rejects(startDemoBackends(configuration(port, healthPort)), {
        code: 'LB_LISTEN_FAILED',
        message: `Sample NVA "nva-2" cannot listen on tcp 127.0.0.42:${port}: EADDRINUSE`,
      });
      // nva-1, which had started, is gone: its port can be had again.
      const again = createServer().listen(port, '127.0.0.41');
      await once(again, 'listening');
      again.close();
    } finally {
      taken.close();
    }
  });

  test('an NVA ends with the process that started it', async () => {
    const path = installedFile('dist/nva-main.js');
    const child = fork(path, ['nva-1', '127.0.0.43', String(await freePort('127.0.0.43')), '0'], {
      execArgv: [],
    });
    assert.deepEqual(((await once(child, 'message')) as [{ type: string }])[0].type, 'ready');
    child.kill('SIGINT');
    await delay(100);
    assert.equal(child.exitCode, null, 'Ctrl-C is for haports');
    child.disconnect();
    const [exitCode] = (await once(child, 'exit')) as [number];
    assert.equal(exitCode, 0);
  });

  test('wrong arguments end an NVA with its usage', async () => {
    const path = installedFile('dist/nva-main.js');
    const child = fork(path, ['nva-1', '127.0.0.43', '0-70000', '0'], { execArgv: [] });
    const [message] = (await once(child, 'message')) as [{ type: string; message: string }];
    assert.equal(message.type, 'failed');
    assert.match(message.message, /^Usage: /);
    assert.equal((await once(child, 'exit'))[0], 1);
  });
});
