import assert from 'node:assert/strict';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import { hasCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { TcpClient } from '../support/tcp-client.js';

const PORT = 7000;
const LIMIT = 600;
/** More than there are descriptors. */
const FLOOD = 2 * LIMIT;
const CLIENTS = 20;

const skip = (await hasCommand('prlimit')) ? false : 'prlimit(1) is not installed';

void describe('the limit of descriptors', { skip }, () => {
  /** A backend whose TCP echoes and whose UDP answers or does not, behind the built process. */
  async function start(t: TestContext, salt: number, workers: number, answersUdp: boolean) {
    const host = loopbackBlock(salt);
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => undefined).on('close', () => sockets.delete(socket)));
      socket.pipe(socket);
    });
    await once(server.listen(PORT, host(11)), 'listening');
    const udp = createSocket('udp4');
    if (answersUdp) udp.on('message', (data, from) => udp.send(data, from.port, from.address));
    udp.bind(PORT, host(11));
    await once(udp, 'listening');
    t.after(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
      udp.close();
    });
    const configuration = labConfig(host, {
      listenPorts: String(PORT),
      backends: 1,
      top: { dataPlane: { workers } },
    });
    const launcher = ['prlimit', `--nofile=${LIMIT}:${LIMIT}`];
    const haports = await HaportsProcess.start(configuration, { launcher });
    t.after(() => haports.kill());
    const [shortage] = logEvents(haports.log(), 'flows-limited');
    assert.equal(shortage?.['limit'], LIMIT);
    assert.match(shortage.msg, /LimitNOFILE=\d+/);
    return { haports, target: { host: host(1), port: PORT } };
  }

  type Lab = Awaited<ReturnType<typeof start>>;

  /** Datagrams of so many clients, whose sockets stay open. */
  async function flood(t: TestContext, { target }: Lab, clients: number): Promise<void> {
    const open: UdpSocket[] = [];
    t.after(() => open.forEach((socket) => socket.close()));
    for (let index = 0; index < clients; index++) {
      const socket = createSocket('udp4');
      open.push(socket);
      await new Promise((sent) => socket.send('x', target.port, target.host, sent));
    }
  }

  async function sumOf({ haports }: Lab, name: string, labels: Readonly<Record<string, string>>) {
    return sumMetric(await haports.metrics(), name, labels);
  }

  async function serves({ target }: Lab, count: number): Promise<void> {
    const clients = await Promise.all(Array.from({ length: count }, () => TcpClient.connect(target)));
    for (const [index, client] of clients.entries()) assert.equal(await client.ask(`${index};`), `${index};`);
    for (const client of clients) client.destroy();
  }

  for (const workers of [0, 1]) {
    void test(`a flood of datagrams without an answer starves no TCP, ${workers} workers`, async (t) => {
      const lab = await start(t, workers, workers, false);
      const evicted = { protocol: 'udp', reason: 'evicted' };
      await flood(t, lab, FLOOD);
      await eventually(
        async () => (await sumOf(lab, 'haports_flows_ended_total', evicted)) > 100,
        20_000,
        'flows without an answer to give way',
      );
      await serves(lab, CLIENTS);
      const [used, limit] = await Promise.all(
        ['used', 'limit'].map((what) => sumOf(lab, `haports_flow_descriptors_${what}`, {})),
      );
      assert.ok(used! <= limit! && 100 < limit! && limit! < LIMIT, `${used} of ${limit}`);
      await lab.haports.stop();
    });
  }

  void test('a flood of datagrams that are answered is refused, and starves no TCP', async (t) => {
    const lab = await start(t, 2, 0, true);
    const refused = { protocol: 'udp', reason: 'descriptors-exhausted' };
    // In parts, so that there is time to answer: flows without an answer would give way.
    await eventually(
      async () => {
        await flood(t, lab, FLOOD / 24);
        return (await sumOf(lab, 'haports_drops_total', refused)) > 0;
      },
      20_000,
      'datagrams to be refused',
    );
    await serves(lab, CLIENTS);
    await lab.haports.stop();
  });

  for (const workers of [0, 1]) {
    void test(`TCP beyond it is refused by RST and counted, ${workers} workers`, async (t) => {
      const lab = await start(t, 3 + workers, workers, false);
      const clients: TcpClient[] = [];
      t.after(() => clients.forEach((client) => client.destroy()));
      const endings = { served: 0, reset: 0, fin: 0 };
      const connect = async (): Promise<void> => {
        try {
          const client = await TcpClient.connect(lab.target);
          clients.push(client);
          const echoed = await client.ask('x').catch(() => undefined);
          if (echoed === 'x') endings.served++;
          else if (client.ending === 'fin') endings.fin++;
          else endings.reset++;
        } catch {
          // The RST came before we saw the connection.
          endings.reset++;
        }
      };
      for (let index = 0; index < LIMIT / 2 + CLIENTS; index++) await connect();
      const readiness = async (): Promise<string> => {
        const { status, text } = await lab.haports.askMetrics('/readyz');
        assert.equal(status, 200);
        return (JSON.parse(text) as { status: string }).status;
      };
      await eventually(
        () =>
          connect()
            .then(readiness)
            .then((is) => is === 'degraded'),
        10_000,
        'degraded',
      );
      assert.equal(endings.fin, 0, JSON.stringify(endings));
      assert.ok(endings.served > 100 && endings.reset > CLIENTS, JSON.stringify(endings));
      const refused = { protocol: 'tcp', reason: 'descriptors-exhausted' };
      assert.equal(await sumOf(lab, 'haports_drops_total', refused), endings.reset);
      assert.equal(logEvents(lab.haports.log(), 'overload-started')[0]?.['reason'], 'descriptors-exhausted');
      for (const client of clients.splice(0)) client.destroy();
      await eventually(
        async () => (await sumOf(lab, 'haports_flows_active', {})) === 0,
        20_000,
        'the flows to end',
      );
      await eventually(async () => (await readiness()) === 'ok', 10_000, 'readiness without a but');
      await serves(lab, CLIENTS);
      await lab.haports.stop();
    });
  }
});
