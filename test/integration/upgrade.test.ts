import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createSocket, type Socket } from 'node:dgram';
import { after, before, describe, test, type TestContext } from 'node:test';
import type { StatusView } from '../../src/api/views.js';
import { campaign } from '../support/campaign.js';
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

/** An upgrade, by how many data workers there are before and after. */
interface Change {
  readonly workers: number;
  readonly next: number;
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
class Newcomers {
  answered = 0;
  readonly failures: string[] = [];
  #isOver = false;
  readonly #done: Promise<unknown>;

  constructor(lab: UpgradeLab, atOnce: number) {
    this.#done = Promise.all(Array.from({ length: atOnce }, () => this.#connectOnAndOn(lab)));
  }

  async #connectOnAndOn(lab: UpgradeLab): Promise<void> {
    for (let index = 0; !this.#isOver; index++) {
      try {
        const client = await TcpClient.connect({ host: lab.host(1), port: PORTS[index % PORTS.length]! });
        await client.ask(`new${index} .`);
        client.destroy();
        this.answered++;
      } catch (error) {
        this.failures.push(String(error));
      }
    }
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#done;
  }
}

async function ask(lab: UpgradeLab, port: number, line: string): Promise<void> {
  const client = await TcpClient.connect({ host: lab.host(1), port });
  await client.ask(line);
  client.destroy();
}

async function pidOf(lab: UpgradeLab): Promise<number> {
  return (await lab.json<StatusView>('status')).pid;
}

/** A process that an upgrade has replaced ends, in good order. */
async function assertEnds(lab: UpgradeLab, pid: number): Promise<void> {
  if (pid === lab.first.pid) assert.equal(await within(lab.first.exit, 10_000, 'the old process to end'), 0);
  else await eventually(async () => !(await isAlive(pid)), 10_000, 'the old process to end');
  assert.equal(logEvents(lab.log, 'stopped').filter((line) => line['pid'] === pid).length, 1);
}

/** Flows of either protocol, and new ones all the while: none is lost. Ends with new data workers. */
async function upgradeUnderLoad(t: TestContext, lab: UpgradeLab, { workers, next }: Change): Promise<void> {
  const old = await pidOf(lab);
  const tcp = await Promise.all(
    Array.from({ length: TCP_FLOWS }, (_, index) =>
      TcpClient.connect({ host: lab.host(1), port: PORTS[index % PORTS.length]! }),
    ),
  );
  t.after(() => tcp.forEach((client) => client.destroy()));
  await Promise.all(tcp.map((client, index) => client.ask(`tcp${index} before.`)));

  const udp = Array.from(
    { length: UDP_FLOWS },
    (_, index) =>
      new NumberedClient(`${workers}to${next}udp${index}`, lab.host(1), PORTS[index % PORTS.length]!),
  );
  t.after(() => udp.forEach((client) => client.close()));
  for (const client of udp) client.send();
  await eventually(() => udp.every(({ missing }) => missing.size === 0), 5000, 'first answers');
  const before = udp.map(({ name }) => lab.backends.map((one) => [...(one.sourcePorts.get(name) ?? [])]));

  const newcomers = new Newcomers(lab, 3);
  const sending = setInterval(() => udp.forEach((client) => client.send()), 50);
  t.after(() => clearInterval(sending));
  await setWorkers(lab.first.configPath, next);
  const outcome = await lab.upgrade();
  const { answered } = newcomers;
  await eventually(() => newcomers.answered > answered + 50, 20_000, 'new connections to the new process');
  clearInterval(sending);
  await newcomers.stop();

  assert.equal(outcome.sockets, 2 * PORTS.length);
  assert.equal(outcome.udpFlows, UDP_FLOWS);
  assert.deepEqual(newcomers.failures, [], 'no new connection fails');
  await Promise.all(tcp.map((client, index) => client.ask(`tcp${index} after.`)));
  assert.equal(await isAlive(old), true, 'the old process serves its TCP flows');

  const sent = udp.reduce((sum, client) => sum + client.sent, 0);
  const lost = (): number => udp.reduce((sum, { missing }) => sum + missing.size, 0);
  await eventually(() => lost() === 0, 2000, 'late answers').catch(() => undefined);
  const after = udp.map(({ name }) => lab.backends.map((one) => [...(one.sourcePorts.get(name) ?? [])]));
  assert.deepEqual(after, before, 'every UDP flow keeps its backend and source port');
  t.diagnostic(
    `workers ${workers}: ready after ${Math.round(outcome.durationMs)} ms, UDP waited ${outcome.udpPauseMs.toFixed(1)} ms, ` +
      `${lost()} of ${sent} datagrams lost, ${newcomers.answered} new connections, none failed`,
  );
  assert.ok(answered > 0, 'clients connect while the processes change over');
  assert.ok(lost() <= sent / 100, `${lost()} of ${sent} datagrams lost`);

  for (const client of tcp) client.destroy();
  await assertEnds(lab, old);
  await ask(lab, 8000, 'the new one serves.');
  assert.equal(await pidOf(lab), outcome.pid);
  assert.ok((await lab.first.metrics()).length > 0, 'the new process has the metrics port');
  if (next === 0) return;
  // Nobody else may have a copy of a socket left: its successor could not listen, and who waits there waits for ever.
  const killed = await childrenOf(outcome.pid);
  for (const worker of killed) process.kill(worker, 'SIGKILL');
  const again = await eventually(
    async () => {
      const client = await TcpClient.connect({ host: lab.host(1), port: 8000 }, 1000);
      return (await client.ask('the new worker serves.', 1000)) === '' ? undefined : client;
    },
    10_000,
    'a new worker to listen',
  );
  again.destroy();
  const areReplaced = async (): Promise<boolean> => {
    const now = await childrenOf(outcome.pid);
    return now.length === next && !now.some((worker) => killed.includes(worker));
  };
  await eventually(areReplaced, 10_000, 'all workers to be replaced');
}

/* Each process that an upgrade has brought is the next one's old one. */

describe('upgrading the built process, flows in the control process', () => {
  let lab: UpgradeLab;
  let systemd: NotifySocket | undefined;
  before(async () => {
    let env = {};
    if (await hasCommand('python3')) {
      systemd = await NotifySocket.open();
      const path = `${await systemd.standInFolder()}:${process.env['PATH'] ?? ''}`;
      env = { PATH: path, NOTIFY_SOCKET: systemd.path };
    }
    lab = await UpgradeLab.start({ salt: 0, listenPorts: '8000-8004', echoPorts: PORTS, env });
  });
  after(async () => {
    await lab.stop();
    await systemd?.close();
  });

  test('loses nobody under load', { timeout: 120_000 }, (t) =>
    upgradeUnderLoad(t, lab, { workers: 0, next: 0 }),
  );

  test('leaves the old process as it was when the new one does not start', { timeout: 60_000 }, async (t) => {
    const failed = logEvents(lab.log, 'upgrade-failed').length;
    const old = await pidOf(lab);
    const client = await TcpClient.connect({ host: lab.host(1), port: 8000 });
    t.after(() => client.destroy());
    const udp = new NumberedClient('steady', lab.host(1), 8000);
    t.after(() => udp.close());
    const path = lab.first.configPath;
    const whole = await readFile(path, 'utf8');
    await writeFile(path, `${whole}broken`);
    const { code, stderr } = await lab.command('upgrade');
    await writeFile(path, whole);
    assert.equal(code, 1);
    assert.match(stderr, /LB_UPGRADE_FAILED: The new process ended before it served \(exit code 2\)/);
    assert.equal(logEvents(lab.log, 'upgrade-failed').length, failed + 1);
    await client.ask('still there.');
    await ask(lab, 8001, 'new too.');
    udp.send();
    await eventually(() => udp.missing.size === 0, 5000, 'UDP to be answered');
    assert.equal(await pidOf(lab), old);
  });

  test(
    'carries what operators have set, again and again, by SIGUSR2 too; ends flows of the old process at the deadline',
    { timeout: 60_000 },
    async (t) => {
      const old = await pidOf(lab);
      const client = await TcpClient.connect({ host: lab.host(1), port: 8000 });
      t.after(() => client.destroy());
      await client.ask('there before.');
      for (const args of [
        ['admin-state', 'nvas/nva-1', 'down'],
        ['weight', 'nvas/nva-2', '7'],
        ['drain', 'nvas/nva-3', '--deadline', '1h', '--force'],
      ]) {
        assert.equal((await lab.command(...args)).code, 0, args.join(' '));
      }
      const first = await lab.upgrade('--deadline', '1s');
      assert.equal(await client.ended(), 'reset');
      const readyMs = Date.parse(String(logEvents(lab.log, 'upgrade-ready').at(-1)?.['time']));
      assert.ok(Date.now() - readyMs > 500, 'it had some time');
      await assertEnds(lab, old);

      const upgrades = logEvents(lab.log, 'upgrade-ready').length;
      process.kill(first.pid, 'SIGUSR2');
      const isReady = () => logEvents(lab.log, 'upgrade-ready').length === upgrades + 1;
      await eventually(isReady, 20_000, 'the second upgrade');
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
    },
  );

  test('tells systemd of each new main process, and not of a stop', { timeout: 60_000 }, async (t) => {
    if (systemd === undefined) {
      t.skip('needs python3');
      return;
    }
    const { messages } = systemd;
    const started = logEvents(lab.log, 'upgrade-started').length;
    if (started === 0) await lab.upgrade();
    const ready = logEvents(lab.log, 'upgrade-ready').length;
    assert.ok(ready > 0);
    await systemd.message(`MAINPID=${await pidOf(lab)}`);
    const count = (start: string): number =>
      messages.filter((message) => message.some((text) => text.startsWith(start))).length;
    assert.equal(count('MAINPID='), ready);
    await eventually(() => count('READY=1') === 1 + ready, 5000, 'each process to be ready');
    assert.equal(count('STOPPING=1'), 0);
  });
});

describe('upgrading the built process, flows in data workers', () => {
  let lab: UpgradeLab;
  before(async () => {
    const top = { dataPlane: { workers: 2 } };
    lab = await UpgradeLab.start({ salt: 1, listenPorts: '8000-8004', echoPorts: PORTS, top });
  });
  after(() => lab.stop());

  const changes: readonly Change[] = [
    { workers: 2, next: 1 },
    { workers: 1, next: 1 },
    { workers: 1, next: 2 },
  ];
  const all = campaign({ share: changes, whole: [...changes, { workers: 2, next: 2 }] });
  for (const change of all) {
    const { workers, next } = change;
    test(
      `loses nobody under load with ${workers} data workers, ${next} after`,
      { timeout: 120_000 },
      async (t) => {
        assert.equal(
          (await lab.json<StatusView>('status')).workers,
          workers,
          'as the test before has left it',
        );
        await upgradeUnderLoad(t, lab, change);
      },
    );
  }

  test('several data workers leave no copy of a socket open', { timeout: 60_000 }, async () => {
    const { pid } = await lab.upgrade();
    const [worker = 0] = await childrenOf(pid);
    process.kill(worker, 'SIGKILL');
    const isReplaced = async (): Promise<boolean> => {
      const now = await childrenOf(pid);
      return now.length === 2 && !now.includes(worker);
    };
    await eventually(isReplaced, 10_000, 'a replacement');
    for (let index = 0; index < 20; index++) await ask(lab, 8004, 'served by either.');
    await reload((text) => text.replaceAll('8000-8004', '8000-8003'));
    await eventually(
      () =>
        TcpClient.connect({ host: lab.host(1), port: 8004 }).then(
          (client) => client.destroy(),
          () => true,
        ),
      5000,
      'the removed port to refuse',
    );
    await ask(lab, 8003, 'still served.');
  });

  test('tells how long a thousand listeners take', { timeout: 120_000 }, async (t) => {
    await reload((text) => text.replace(/8000-800\d/, '8000-8999'));
    await setWorkers(lab.first.configPath, 1);
    const { sockets, durationMs, udpPauseMs } = await lab.upgrade();
    assert.equal(sockets, 2000);
    t.diagnostic(
      `${sockets} sockets: ${Math.round(durationMs)} ms in all, UDP waited ${Math.round(udpPauseMs)} ms`,
    );
    assert.ok(durationMs < 20_000);
  });

  async function reload(edit: (text: string) => string): Promise<void> {
    const path = lab.first.configPath;
    await writeFile(path, edit(await readFile(path, 'utf8')));
    const { code, stderr } = await lab.command('reload', '-c', path);
    assert.equal(code, 0, stderr);
  }
});
