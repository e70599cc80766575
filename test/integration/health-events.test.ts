import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { FeedEvent } from '../../src/api/views.js';
import type { BackendPoolView } from '../../src/api/views.js';
import { AdminEvents } from '../support/admin-events.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { logEvents } from '../support/log-lines.js';
import { sumMetric } from '../support/metrics-text.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

const SECRET = 'T0P5ecretPath';
/** Forwarded by a rule of its own; no backend listens there. */
const CLOSED_PORT = 8010;

interface Posted {
  readonly contentType: string | undefined;
  readonly url: string | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

void describe('health events of the built process', () => {
  const service = useService(
    {
      ports: [8000, 8009],
      listenPorts: '8000-8009,8020-8119',
      nvas: 2,
      // Silence counts after two seconds; the monitor waits as long before it doubts the probe.
      probe: { ...NVA_PROBE, interval: '100ms', threshold: 20 },
    },
    { isStarted: false },
  );
  const { host, nvas } = service;
  const posted: Posted[] = [];
  let receiver: Server;
  let balancer: HaportsProcess;
  let stream: AdminEvents;

  before(async () => {
    receiver = createServer((request, response) => {
      let text = '';
      request.setEncoding('utf8').on('data', (part: string) => (text += part));
      request.on('end', () => {
        const { url, headers } = request;
        const body = JSON.parse(text) as Posted['body'];
        posted.push({ url, contentType: headers['content-type'], body });
        response.writeHead(204).end();
      });
    });
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    const { port } = receiver.address() as AddressInfo;
    const { rules } = service.configuration() as { readonly rules?: readonly object[] };
    const closed = {
      ...{ name: 'closed', frontend: 'hub', backendPool: 'nvas', probe: 'alive', protocol: 'tcp' },
      ...{ frontendPort: CLOSED_PORT, backendPort: CLOSED_PORT },
    };
    const events = { webhook: `http://127.0.0.1:${port}/${SECRET}` };
    balancer = await service.start({ top: { events, rules: [...(rules ?? []), closed] } });
    stream = await AdminEvents.open(balancer.socket);
  });

  after(() => {
    stream.close();
    receiver.close();
    receiver.closeAllConnections();
  });

  const isOf =
    (name: string, phase: string) =>
    ({ type, fields }: FeedEvent): boolean =>
      type === 'health-event' && fields['name'] === name && fields['phase'] === phase;

  const told = (name: string, phase: string, timeoutMs = 8000): Promise<FeedEvent> =>
    eventually(() => stream.events.find(isOf(name, phase)), timeoutMs, `${name} to be ${phase}`);

  const isActive = async (name: string, subject: string): Promise<boolean> =>
    sumMetric(await balancer.metrics(), 'haports_health_event_active', { name, subject }) === 1;

  const post = (name: string, phase: string): Promise<Posted> =>
    eventually(
      () => posted.find(({ body }) => body['name'] === name && body['phase'] === phase),
      8000,
      `${name} ${phase} at the webhook`,
    );

  test('NoHealthyBackends is raised and resolved in the log, the stream, the metric and at the webhook', async () => {
    for (const nva of nvas) await nva.setHealth('sick');
    const raised = await told('NoHealthyBackends', 'raised');
    assert.equal(raised.fields['subject'], 'nvas');
    assert.equal(raised.fields['severity'], 'critical');
    assert.match(String(raised.fields['evidence']), /^0 of 2 backends may get new flows by probe "alive"/);
    assert.ok(await isActive('NoHealthyBackends', 'nvas'));
    const { url, contentType, body } = await post('NoHealthyBackends', 'raised');
    assert.equal(url, `/${SECRET}`);
    assert.match(contentType ?? '', /^application\/json/);
    const { evidence, atMs } = raised.fields;
    assert.deepEqual(body, {
      ...{ type: 'health-event', name: 'NoHealthyBackends', severity: 'critical', phase: 'raised' },
      ...{ subject: 'nvas', evidence, atMs, Type: 'ALBHealthEvent', SourceSystem: 'haports' },
      ...{ TimeGenerated: new Date(Number(atMs)).toISOString(), operationName: 'LoadBalancerHealthEvent' },
      ...{
        HealthEventType: 'NoHealthyBackends',
        Severity: 'Critical',
        Description: `nvas: ${String(evidence)}`,
      },
    });

    for (const nva of nvas) await nva.setHealth('well');
    await told('NoHealthyBackends', 'resolved');
    assert.ok(!(await isActive('NoHealthyBackends', 'nvas')));
    await post('NoHealthyBackends', 'resolved');
    const phases = logEvents(balancer.log(), 'health-event')
      .filter(({ name }) => name === 'NoHealthyBackends')
      .map(({ level, phase }) => [level, phase]);
    assert.deepEqual(phases, [
      ['warn', 'raised'],
      ['info', 'resolved'],
    ]);
    assert.ok(!balancer.log().includes(SECRET), 'the path of the webhook is not logged');
  });

  test('a reader that comes back hears what it missed, once and in order', async () => {
    const seen = await told('NoHealthyBackends', 'raised');
    const again = await AdminEvents.open(balancer.socket, seen.id);
    await eventually(() => again.events.some(isOf('NoHealthyBackends', 'resolved')), 5000, 'the rest');
    again.close();
    const ids = again.events.map(({ id }) => id);
    assert.deepEqual(
      ids,
      ids.map((_, index) => seen.id + 1 + index),
    );
    const missed = stream.events.filter(({ id }) => id > seen.id && id <= ids.at(-1)!);
    assert.deepEqual(missed, again.events);
  });

  /** One connection to each port, all at once, and how they ended. */
  const knock = (ports: readonly number[]) =>
    Promise.all(
      ports.map(async (port) => {
        const client = await TcpClient.connect({ host: host(1), port }).catch(() => undefined);
        // A reset can come before the program hears of its connection.
        if (client === undefined) return 'reset';
        return client.ended().finally(() => client.destroy());
      }),
    );

  test('a scan of closed ports of a range raises nothing, and is held against no backend', async () => {
    const closedPorts = Array.from({ length: 100 }, (_, index) => 8020 + index);
    const refused = async () =>
      sumMetric(await balancer.metrics(), 'haports_flows_ended_total', { reason: 'refused' });
    for (let round = 1; round <= 3; round++) {
      assert.deepEqual(new Set(await knock(closedPorts)), new Set(['reset']));
      await eventually(async () => (await refused()) === round * closedPorts.length, 8000, 'the refusals');
    }
    assert.equal(sumMetric(await balancer.metrics(), 'haports_connect_failures_total'), 0);
    assert.equal(sumMetric(await balancer.metrics(), 'haports_connect_retries_total'), 0);
    const names = logEvents(balancer.log(), 'health-event').map(({ name }) => name);
    assert.ok(!names.includes('ProbeUpTrafficFailing'), names.join());
  });

  test('ProbeUpTrafficFailing tells of a backend whose probe is green while its one port refuses', async (context) => {
    // The other one is taken out, so that all flows meet the first.
    await service.ok('admin-state', 'nvas/nva-2', 'down');
    const startedAtMs = performance.now();
    const attempts = { going: true };
    const keepTrying = (async () => {
      while (attempts.going) {
        await knock(Array.from({ length: 10 }, () => CLOSED_PORT)).catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    let raised: FeedEvent;
    try {
      raised = await told('ProbeUpTrafficFailing', 'raised', 15_000);
    } finally {
      attempts.going = false;
      await keepTrying;
    }
    const subject = `nvas/${host(11)}`;
    assert.equal(raised.fields['subject'], subject);
    assert.equal(raised.fields['severity'], 'critical');
    assert.match(
      String(raised.fields['evidence']),
      /^Probe "alive" finds it up; \d+ of \d+ new flows failed in the last \d+ s: \d+ could not connect/,
    );
    assert.ok(await isActive('ProbeUpTrafficFailing', subject));
    const { body } = await post('ProbeUpTrafficFailing', 'raised');
    assert.equal(body['HealthEventType'], 'ProbeUpTrafficFailing');
    context.diagnostic(
      `raised after ${((performance.now() - startedAtMs) / 1000).toFixed(1)} s: ${String(raised.fields['evidence'])}`,
    );

    // It tells, and takes nobody out.
    const { backends } = await balancer.get<BackendPoolView>('/v1/pools/nvas');
    assert.equal(backends.find(({ name }) => name === 'nva-1')?.serving, true);
    assert.equal((await service.tcp()).backend, 'nva-1');

    // Once the probe finds it too, they agree.
    await nvas[0]!.setHealth('sick');
    await told('ProbeUpTrafficFailing', 'resolved');
    assert.ok(!(await isActive('ProbeUpTrafficFailing', subject)));
  });
});
