import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test, type TestContext } from 'node:test';
import type { HealthEvent } from '../../../src/model/events.js';
import { postJson, sendOnce, Webhook, type Post } from '../../../src/observe/webhook.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { LineRecorder } from './line-recorder.js';

const URL_OF_HOOK = 'https://hooks.example.net/secret-path?token=secret';

function event(subject: string): HealthEvent {
  return {
    ...{ type: 'health-event', name: 'NoHealthyBackends', severity: 'critical', phase: 'raised', subject },
    ...{ evidence: '0 of 3', atMs: 1_763_640_000_000 },
  };
}

interface Request {
  readonly body: Readonly<Record<string, unknown>>;
  readonly atMs: number;
  /** Undefined: it failed, with an error. */
  answer(status: number | undefined): void;
}

function setUp() {
  const clock = new FakeClock();
  const recorder = new LineRecorder();
  const requests: Request[] = [];
  let open = 0;
  let mostOpen = 0;
  const post: Post = (url, body, signal) => {
    assert.equal(url, URL_OF_HOOK);
    mostOpen = Math.max(mostOpen, ++open);
    return new Promise<number>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
      requests.push({
        body: JSON.parse(body) as Request['body'],
        atMs: clock.monotonicMs(),
        answer: (status) => {
          if (status === undefined) reject(new Error('ECONNREFUSED'));
          else resolve(status);
        },
      });
    }).finally(() => open--);
  };
  const webhook = new Webhook({ clock, onEvent: recorder.bus.emit, post }, { url: URL_OF_HOOK });
  const subjects = () => requests.map(({ body }) => body['subject']);
  return { clock, recorder, requests, webhook, subjects, mostOpen: () => mostOpen };
}

/** What was posted to it: method, type and sender, and the body. */
async function realServer(t: TestContext, status: number) {
  const requests: { readonly head: string; readonly body: string }[] = [];
  const server = createServer(({ method, headers }, response) => {
    const head = [method, headers['content-type'], headers['user-agent']].join(' ');
    void text(response.req).then((body) => {
      requests.push({ head, body });
      response.writeHead(status).end('thanks');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, requests };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('Webhook', () => {
  test("post() sends the event under its own and under Azure's names", async () => {
    const { requests, webhook } = setUp();
    webhook.post(event('nvas'));
    assert.equal(requests.length, 0, 'nothing happens inside post()');
    await settle();
    assert.deepEqual(requests[0]?.body, {
      ...event('nvas'),
      Type: 'ALBHealthEvent',
      SourceSystem: 'haports',
      TimeGenerated: '2025-11-20T12:00:00.000Z',
      operationName: 'LoadBalancerHealthEvent',
      HealthEventType: 'NoHealthyBackends',
      Severity: 'Critical',
      Description: 'nvas: 0 of 3',
    });
  });

  test('post() sends one event at a time, in order', async () => {
    const { requests, webhook, subjects, mostOpen } = setUp();
    for (const subject of ['a', 'b', 'c']) webhook.post(event(subject));
    for (let index = 0; index < 3; index++) {
      await settle();
      assert.equal(requests.length, index + 1);
      requests[index]?.answer(204);
    }
    await settle();
    assert.deepEqual(subjects(), ['a', 'b', 'c']);
    assert.equal(mostOpen(), 1);
    webhook.post(event('d'));
    await settle();
    assert.deepEqual(subjects(), ['a', 'b', 'c', 'd']);
  });

  test('post() forgets no event that comes just as the last one is done', async () => {
    for (let turns = 0; turns < 20; turns++) {
      const { requests, webhook, subjects } = setUp();
      webhook.post(event('a'));
      await settle();
      requests[0]?.answer(200);
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      webhook.post(event('b'));
      await settle();
      assert.deepEqual(subjects(), ['a', 'b'], `after ${turns} turns`);
    }
  });

  test('post() tries again up to five times, later and later, then gives up', async () => {
    const { clock, recorder, requests, webhook } = setUp();
    webhook.post(event('a'));
    webhook.post(event('b'));
    const outcomes = [500, undefined, 429, 408, 503, 500];
    for (const [index, outcome] of outcomes.entries()) {
      await settle();
      requests[index]?.answer(outcome);
      await settle();
      if (index < 5) clock.advance(1000 * 2 ** index);
    }
    await settle();
    assert.deepEqual(
      requests.map(({ body, atMs }) => `${String(body['subject'])} ${atMs / 1000}`),
      ['a 0', 'a 1', 'a 3', 'a 7', 'a 15', 'a 31', 'b 31'],
    );
    assert.deepEqual(recorder.texts, [
      'warn Cannot post health event NoHealthyBackends of "a" to the webhook: HTTP 500',
    ]);
  });

  test('post() takes other answers for final, and keeps the path of the URL to itself', async () => {
    for (const status of [301, 400, 404]) {
      const { clock, recorder, requests, webhook } = setUp();
      webhook.post(event('a'));
      await settle();
      requests[0]?.answer(status);
      await settle();
      await clock.advanceAsync(60_000, 1000);
      assert.equal(requests.length, 1);
      assert.equal(recorder.lines.length, 1);
      assert.equal(recorder.lines[0]?.fields['url'], 'https://hooks.example.net');
      assert.ok(!JSON.stringify(recorder.lines).includes('secret'));
    }
  });

  test('post() waits five seconds for an answer', async () => {
    const { clock, requests, webhook } = setUp();
    webhook.post(event('a'));
    await settle();
    await clock.advanceAsync(4999);
    await clock.advanceAsync(1);
    assert.equal(requests.length, 1);
    await clock.advanceAsync(999);
    assert.equal(requests.length, 1);
    await clock.advanceAsync(1);
    assert.equal(requests.length, 2);
  });

  test('post() keeps a hundred waiting and drops the oldest, telling it once', async () => {
    const { recorder, requests, webhook, subjects } = setUp();
    webhook.post(event('first'));
    await settle();
    for (let index = 0; index < 150; index++) webhook.post(event(String(index)));
    assert.deepEqual(recorder.texts, [
      'warn More than 100 health events wait for the webhook: the oldest are dropped',
    ]);
    for (let index = 0; index < 101; index++) {
      requests[index]?.answer(200);
      await settle();
    }
    assert.equal(requests.length, 101);
    assert.deepEqual(subjects().slice(0, 3), ['first', '50', '51']);
    assert.equal(subjects().at(-1), '149');
  });

  test('stop() lets what waits go out, without a second try', async () => {
    const { clock, requests, webhook, subjects } = setUp();
    webhook.post(event('a'));
    webhook.post(event('b'));
    await settle();
    requests[0]?.answer(500);
    await settle();
    const stopped = webhook.stop();
    await settle();
    assert.deepEqual(subjects(), ['a', 'a'], 'the wait for the next try is cut short');
    requests[1]?.answer(500);
    await settle();
    requests[2]?.answer(200);
    await stopped;
    assert.deepEqual(subjects(), ['a', 'a', 'b']);
    webhook.post(event('late'));
    await settle();
    assert.equal(requests.length, 3);
    assert.equal(clock.pendingTimers, 0);
  });

  test('stop() takes two seconds at most', async () => {
    const { clock, recorder, requests, webhook } = setUp();
    for (const subject of ['a', 'b', 'c']) webhook.post(event(subject));
    await settle();
    let isStopped = false;
    const stopped = webhook.stop().then(() => (isStopped = true));
    await clock.advanceAsync(1999);
    assert.equal(isStopped, false);
    await clock.advanceAsync(1);
    await stopped;
    assert.equal(requests.length, 1);
    assert.match(recorder.texts.join('\n'), /Cannot post 2 more health events/);
    assert.equal(clock.pendingTimers, 0);
    await webhook.stop();
  });

  test('a URL that cannot be posted to harms nothing', async () => {
    const recorder = new LineRecorder();
    const clock = new FakeClock();
    const webhook = new Webhook({ clock, onEvent: recorder.bus.emit }, { url: 'nonsense' });
    webhook.post(event('a'));
    await clock.advanceAsync(60_000, 500);
    assert.match(recorder.texts.join('\n'), /to the webhook: Invalid URL$/);
  });

  test('delivers to a real server', async (t) => {
    const { url, requests } = await realServer(t, 200);
    const recorder = new LineRecorder();
    const webhook = new Webhook({ clock: systemClock, onEvent: recorder.bus.emit }, { url });
    webhook.post(event('nvas'));
    webhook.post(event('other'));
    await webhook.stop();
    assert.deepEqual(recorder.lines, []);
    const sent = requests.map(({ body, head }) => `${head} ${(JSON.parse(body) as HealthEvent).subject}`);
    assert.deepEqual(sent, ['POST application/json haports nvas', 'POST application/json haports other']);
  });
});

describe('postJson()', () => {
  const { signal } = new AbortController();
  const failing = (code: string) => Promise.reject(Object.assign(new Error(`connect ${code}`), { code }));

  test('posts from an own address where the kernel has no port for others', async (t) => {
    const { url, requests } = await realServer(t, 202);
    let tries = 0;
    const status = await postJson(url, '{"a":1}', signal, (to, body, end, from) =>
      tries++ === 0 ? failing('EADDRNOTAVAIL') : sendOnce(to, body, end, from),
    );
    assert.equal(status, 202);
    assert.deepEqual(
      requests.map(({ body }) => body),
      ['{"a":1}'],
    );
  });

  test('rejects as before where no own address has a port either', async () => {
    const from: (string | undefined)[] = [];
    const posting = postJson('http://127.0.0.1:9/', '{}', signal, (_url, _body, _signal, localAddress) => {
      from.push(localAddress);
      return failing(localAddress === undefined ? 'EADDRNOTAVAIL' : 'EADDRINUSE');
    });
    await assert.rejects(posting, { message: 'connect EADDRNOTAVAIL' });
    assert.deepEqual(from, [undefined, '127.0.0.1']);
  });

  test('leaves any other failure alone', async () => {
    const posting = postJson('http://127.0.0.1:9/', '{}', signal, () => failing('ECONNREFUSED'));
    await assert.rejects(posting, { message: 'connect ECONNREFUSED' });
  });
});
