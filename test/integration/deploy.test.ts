import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { hasCommand, runCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { loopbackBlock } from '../support/loopback.js';
import { NotifySocket } from '../support/notify-socket.js';
import { parseScrape } from '../support/prometheus-text.js';

const host = loopbackBlock();
const LISTEN = `${host(3)}:9902`;
const configuration = { ...labConfig(host, { listenPorts: '8000-8001' }), metrics: { listen: LISTEN } };

describe('the built process under systemd', () => {
  let socket: NotifySocket | undefined;
  let haports: HaportsProcess | undefined;
  let missing: string | undefined;

  before(async () => {
    if (!(await hasCommand('python3'))) {
      missing = 'python3 is not installed';
      return;
    }
    socket = await NotifySocket.open();
    // Without the real program, something with its name that sends the same.
    if (!(await hasCommand('systemd-notify'))) {
      process.env['PATH'] = `${await socket.standInFolder()}:${process.env['PATH'] ?? ''}`;
    }
    process.env['NOTIFY_SOCKET'] = socket.path;
    process.env['WATCHDOG_USEC'] = '1000000';
    haports = await HaportsProcess.start(configuration);
  });

  after(async () => {
    await haports?.kill();
    await socket?.close();
  });

  test('says that it is ready, alive, reloading and stopping', async (t) => {
    if (socket === undefined || haports === undefined) {
      t.skip(missing);
      return;
    }
    const [ready, status] = await socket.message('READY=1');
    assert.equal(ready, 'READY=1');
    assert.match(status ?? '', /^STATUS=Listening on 2 TCP and 2 UDP ports;/);
    assert.deepEqual(await socket.message('WATCHDOG=1'), ['WATCHDOG=1']);

    haports.child.kill('SIGHUP');
    const reloading = await socket.message('RELOADING=1');
    assert.match(reloading[1] ?? '', /^MONOTONIC_USEC=\d+$/);
    const { messages } = socket;
    const order = (): readonly (string | undefined)[] => messages.map(([first]) => first);
    await eventually(
      () => order().lastIndexOf('READY=1') > order().indexOf('RELOADING=1'),
      10_000,
      'the end of the reload',
    );

    assert.equal(await haports.stop(), 0);
    const stopping = await socket.message('STOPPING=1');
    assert.equal(stopping[1], 'EXTEND_TIMEOUT_USEC=11000000');
    assert.ok(order().indexOf('STOPPING=1') > order().lastIndexOf('READY=1'));
  });
});

describe('the built process in a container, watched by Prometheus', () => {
  let haports: HaportsProcess;
  before(async () => {
    delete process.env['NOTIFY_SOCKET'];
    haports = await HaportsProcess.start(configuration);
  });
  after(() => haports.kill());

  test('is well, as the health check of the image finds it', async () => {
    const dockerfile = await readFile('deploy/container/Dockerfile', 'utf8');
    const [, words = ''] = /^HEALTHCHECK (?:.*\\\n)?\s*CMD (\[.*\])$/m.exec(dockerfile) ?? [];
    const [node = '', ...args] = JSON.parse(words) as readonly string[];
    process.env['HAPORTS_HEALTHZ'] = `http://${LISTEN}/healthz`;
    const outcome = await runCommand(node, args);
    assert.deepEqual(outcome, { code: 0, stdout: '', stderr: '' });
  });

  test('exports every metric that the dashboard and the alerts ask for', async () => {
    const { types } = parseScrape(await (await fetch(`http://${LISTEN}/metrics`)).text());
    for (const path of ['deploy/grafana/haports.json', 'deploy/prometheus/alerts.yml']) {
      const named = (await readFile(path, 'utf8')).matchAll(/\bhaports_[a-z_]+/g);
      const missing = [...new Set([...named].map(([name]) => name))].filter(
        (name) => !types.has(name) && !types.has(name.replace(/_(bucket|sum|count)$/, '')),
      );
      assert.deepEqual(missing, [], path);
    }
  });
});
