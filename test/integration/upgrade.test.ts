import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createSocket, type Socket } from 'node:dgram';
import { describe, test, type TestContext } from 'node:test';
import { oneOfEachKind } from '../support/campaign.js';
import { hasCommand } from '../support/commands.js';
import { eventually, within } from '../support/deadline.js';
import { childrenOf, isAlive } from '../support/haports-process.js';
import { logEvents } from '../support/log-lines.js';
import { NotifySocket } from '../support/notify-socket.js';
import { TcpClient } from '../support/tcp-client.js';
import { UpgradeLab } from '../support/upgrade-lab.js';

const PORTS = [8000, 8001, 8002, 8003, 8004];
const TCP_FLOWS = 200;
const UDP_FLOWS = 100;

type LabOptions = Partial<Parameters<typeof UpgradeLab.start>[0]>;

let salt = 0;

async function labFor(t: TestContext, options: LabOptions = {}): Promise<UpgradeLab> {
  const lab = await UpgradeLab.start({
    salt: salt++,
    listenPorts: '8000-8004',
    echoPorts: PORTS,
    ...options,
  });
  t.after(() => lab.stop());
  return lab;
}

async function setWorkers(path: string, workers: number): Promise<void> {
  const config = JSON.parse(await readFile(path, 'utf8')) as object;
  await writeFile(path, JSON.stringify({ ...config, dataPlane: { workers } }));
}

/** A UDP client that numbers what it sends and notes what comes back. */
class NumberedClient {
  readonly name: string;
  readonly missing = new Set<number>();
  #sent = 0;
  readonly #socket: Socket;
  readonly #port: number;
  readonly #host: string;

  constructor(name: string, host: string, port: number) {
    this.name = name;
    this.#host = host;
    this.#port = port;
    this.#socket = createSocket('udp4');
    this.#socket.on('error', () => undefined);
    this.#socket.on('message', (datagram) =>
      this.missing.delete(Number(datagram.toString('latin1').split(' ')[1])),
    );
  }

  get sent(): number {
    return this.#sent;
  }

  send(): void {
    this.missing.add(this.#sent);
    this.#socket.send(`${this.name} ${this.#sent++} .`, this.#port, this.#host);
  }

  close(): void {
    this.#socket.close();
  }
}

/** Connections one after another, each asked once, until stopped. */
async function connectOnAndOn(
  lab: UpgradeLab,
  onAnswer: () => void,
  isOver: () => boolean,
): Promise<readonly string[]> {
  const failures: string[] = [];
  for (let index = 0; !isOver(); index++) {
    try {
      const client = await TcpClient.connect({ host: lab.host(1), port: PORTS[index % PORTS.length]! });
      await client.ask(`new${index} .`);
      client.destroy();
      onAnswer();
    } catch (error) {
      failures.push(String(error));
    }
  }
  return failures;
}

void describe('upgrading the built process', () => {
  const changes = [
    { workers: 0, next: 0, kind: 'in the control process' },
    { workers: 1, next: 1, kind: 'as many' },
    { workers: 2, next: 2, kind: 'as many' },
    { workers: 1, next: 2, kind: 'more' },
    { workers: 2, next: 1, kind: 'fewer' },
  ];
  for (const { workers, next } of oneOfEachKind(changes, ({ kind }) => kind)) {
    test(
      `loses nobody under load with ${workers} data workers, ${next} after`,
      { timeout: 120_000 },
      async (t) => {
        const lab = await labFor(t, { top: { dataPlane: { workers } } });
        const old = lab.first;
        const tcp = await Promise.all(
          Array.from({ length: TCP_FLOWS }, (_, index) =>
            TcpClient.connect({ host: lab.host(1), port: PORTS[index % PORTS.length]! }),
          ),
        );
        t.after(() => tcp.forEach((client) => client.destroy()));
        await Promise.all(tcp.map((client, index) => client.ask(`tcp${index} before.`)));

        const udp = Array.from(
          { length: UDP_FLOWS },
          (_, index) => new NumberedClient(`udp${index}`, lab.host(1), PORTS[index % PORTS.length]!),
        );
        t.after(() => udp.forEach((client) => client.close()));
        for (const client of udp) client.send();
        await eventually(() => udp.every(({ missing }) => missing.size === 0), 5000, 'first answers');
        const before = udp.map(({ name }) =>
          lab.backends.map((one) => [...(one.sourcePorts.get(name) ?? [])]),
        );

        let over = false;
        let fresh = 0;
        const connecting = Promise.all(
          [1, 2, 3].map(() =>
            connectOnAndOn(
              lab,
              () => fresh++,
              () => over,
            ),
          ),
        );
        const sending = setInterval(() => udp.forEach((client) => client.send()), 50);
        t.after(() => clearInterval(sending));
        if (next !== workers) await setWorkers(old.configPath, next);
        const outcome = await lab.upgrade();
        const during = fresh;
        await eventually(() => fresh > during + 50, 20_000, 'new connections after the upgrade');
        over = true;
        clearInterval(sending);
        const failures = (await connecting).flat();

        assert.equal(outcome.sockets, 2 * PORTS.length);
        assert.equal(outcome.udpFlows, UDP_FLOWS);
        assert.deepEqual(failures, [], 'no new connection fails');
        await Promise.all(tcp.map((client, index) => client.ask(`tcp${index} after.`)));
        assert.equal(await isAlive(old.pid), true, 'the old process serves its TCP flows');

        const sent = udp.reduce((sum, client) => sum + client.sent, 0);
        const lost = (): number => udp.reduce((sum, { missing }) => sum + missing.size, 0);
        await eventually(() => lost() === 0, 2000, 'late answers').catch(() => undefined);
        const after = udp.map(({ name }) =>
          lab.backends.map((one) => [...(one.sourcePorts.get(name) ?? [])]),
        );
        assert.deepEqual(after, before, 'every UDP flow keeps its backend and source port');
        t.diagnostic(
          `workers ${workers}: ready after ${Math.round(outcome.durationMs)} ms, UDP waited ${outcome.udpPauseMs.toFixed(1)} ms, ` +
            `${lost()} of ${sent} datagrams lost, ${fresh} new connections, none failed`,
        );
        assert.ok(lost() <= sent / 100, `${lost()} of ${sent} datagrams lost`);
        assert.ok(during > 0, 'clients connect while the processes change over');

        for (const client of tcp) client.destroy();
        await within(old.exit, 10_000, 'the old process to end with its last flow');
        assert.equal(old.child.exitCode, 0);
        await (await TcpClient.connect({ host: lab.host(1), port: 8000 })).ask('the new one serves.');
        const status = await lab.json<{ readonly pid: number }>('status');
        assert.equal(status.pid, outcome.pid);
        assert.ok((await old.metrics()).length > 0, 'the new process has the metrics port');
        if (next === 0) return;
        // Nobody else may have a copy of a socket left: its successor could not listen, and who waits there waits for ever.
        for (const worker of await childrenOf(outcome.pid)) process.kill(worker, 'SIGKILL');
        const again = await eventually(
          async () => {
            const client = await TcpClient.connect({ host: lab.host(1), port: 8000 }, 1000);
            return (await client.ask('the new worker serves.', 1000)) === '' ? undefined : client;
          },
          10_000,
          'a new worker to listen',
        );
        again.destroy();
      },
    );
  }

  test('several data workers leave no copy of a socket open', { timeout: 60_000 }, async (t) => {
    const lab = await labFor(t, { top: { dataPlane: { workers: 2 } } });
    await lab.upgrade();
    const { pid } = await lab.upgrade();
    const [worker = 0] = await childrenOf(pid);
    process.kill(worker, 'SIGKILL');
    await eventually(async () => (await childrenOf(pid)).length === 2, 10_000, 'a replacement');
    for (let index = 0; index < 20; index++) {
      const client = await TcpClient.connect({ host: lab.host(1), port: 8004 });
      await client.ask('served by either.');
      client.destroy();
    }
    const path = lab.first.configPath;
    await writeFile(path, (await readFile(path, 'utf8')).replaceAll('8000-8004', '8000-8003'));
    const { code, stderr } = await lab.command('reload', '-c', path);
    assert.equal(code, 0, stderr);
    await eventually(
      () =>
        TcpClient.connect({ host: lab.host(1), port: 8004 }).then(
          (client) => client.destroy(),
          () => true,
        ),
      5000,
      'the removed port to refuse',
    );
    const client = await TcpClient.connect({ host: lab.host(1), port: 8003 });
    await client.ask('still served.');
    client.destroy();
  });

  test(
    'leaves the old process as it was when the new one does not start; ends its flows at the deadline when one does',
    { timeout: 60_000 },
    async (t) => {
      const lab = await labFor(t);
      const client = await TcpClient.connect({ host: lab.host(1), port: 8000 });
      t.after(() => client.destroy());
      const udp = new NumberedClient('steady', lab.host(1), 8000);
      t.after(() => udp.close());
      const path = lab.first.configPath;
      const whole = await readFile(path, 'utf8');
      await writeFile(path, `${whole}broken`);
      const { code, stderr } = await lab.command('upgrade');
      assert.equal(code, 1);
      assert.match(stderr, /LB_UPGRADE_FAILED: The new process ended before it served \(exit code 2\)/);
      assert.equal(logEvents(lab.log, 'upgrade-failed').length, 1);
      await client.ask('still there.');
      await (await TcpClient.connect({ host: lab.host(1), port: 8001 })).ask('new too.');
      udp.send();
      await eventually(() => udp.missing.size === 0, 5000, 'UDP to be answered');
      assert.equal((await lab.json<{ readonly pid: number }>('status')).pid, lab.first.pid);

      await writeFile(path, whole);
      await lab.upgrade('--deadline', '1s');
      const began = performance.now();
      assert.equal(await client.ended(), 'reset');
      assert.ok(performance.now() - began > 200, 'it had some time');
      await within(lab.first.exit, 5000, 'the old process to end');
    },
  );

  test('carries what operators have set, again and again, by SIGUSR2 too', { timeout: 60_000 }, async (t) => {
    const lab = await labFor(t);
    for (const args of [
      ['admin-state', 'nvas/nva-1', 'down'],
      ['weight', 'nvas/nva-2', '7'],
      ['drain', 'nvas/nva-3', '--deadline', '1h', '--force'],
    ]) {
      assert.equal((await lab.command(...args)).code, 0, args.join(' '));
    }
    const first = await lab.upgrade();
    process.kill(first.pid, 'SIGUSR2');
    await eventually(() => logEvents(lab.log, 'upgrade-ready').length === 2, 20_000, 'the second upgrade');
    await eventually(async () => !(await isAlive(first.pid)), 10_000, 'the second process to end');
    const overrides = await eventually(
      () => lab.json<readonly { readonly backends: readonly Record<string, unknown>[] }[]>('backends'),
      5000,
      'the third process to answer',
    );
    const [one, two, three] = overrides[0]?.backends ?? [];
    assert.equal(one?.['adminState'], 'down');
    assert.equal(two?.['weight'], 7);
    assert.equal(three?.['exclusion'], 'draining');
  });

  test('tells systemd of the new main process, and not of a stop', { timeout: 60_000 }, async (t) => {
    if (!(await hasCommand('python3'))) {
      t.skip('needs python3');
      return;
    }
    const systemd = await NotifySocket.open();
    t.after(() => systemd.close());
    const path = `${await systemd.standInFolder()}:${process.env['PATH'] ?? ''}`;
    const lab = await labFor(t, { env: { PATH: path, NOTIFY_SOCKET: systemd.path } });
    await systemd.message('READY=1');
    const { pid } = await lab.upgrade();
    await systemd.message(`MAINPID=${pid}`);
    await within(lab.first.exit, 10_000, 'the old process to end');
    await eventually(
      () => systemd.messages.filter((message) => message.includes('READY=1')).length === 2,
      5000,
      'the new process to be ready',
    );
    assert.ok(!systemd.messages.some((message) => message.includes('STOPPING=1')));
  });

  test('tells how long a thousand listeners take', { timeout: 120_000 }, async (t) => {
    const lab = await labFor(t, { listenPorts: '8000-8999', top: { dataPlane: { workers: 1 } } });
    const { sockets, durationMs, udpPauseMs } = await lab.upgrade();
    assert.equal(sockets, 2000);
    t.diagnostic(
      `${sockets} sockets: ${Math.round(durationMs)} ms in all, UDP waited ${Math.round(udpPauseMs)} ms`,
    );
    assert.ok(durationMs < 20_000);
  });
});
