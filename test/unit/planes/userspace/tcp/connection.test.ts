import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FlowManager } from '../../../../../src/flows/flow-manager.js';
import { formatFiveTuple, ipAddress, parseCidr } from '../../../../../src/model/address.js';
import { captureAddress, captureSlots, type CapturePlan } from '../../../../../src/model/capture.js';
import { parsePortSet, portSetOf } from '../../../../../src/model/ports.js';
import { type Captured, CapturedFrontends } from '../../../../../src/planes/userspace/listen-plan.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import type { FakeStream } from '../../../../support/fake-streams.js';
import { AZURE_POLICY, testState } from '../../../../support/forwarding-state.js';
import { FIRST, inMemory, SECOND, SOURCE, THIRD, type TcpLab } from './tcp-lab.js';

/* TcpConnection and TcpListener over streams in memory. What real sockets make of it is in wire.test.ts. */

const RESETS = { ...AZURE_POLICY, 'probe-down': { tcp: 'reset', udp: 'reset' } } as const;
const DOWN = { address: FIRST, valid: false } as const;
const ONE_PORT = { haPorts: false, ports: portSetOf(443) };
const INELIGIBLE = { backends: [{ address: FIRST, eligible: false }] };
const FROM_SOURCE = { pool: { sourceAddresses: [SOURCE] } };

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('TcpConnection while it is dialling', () => {
  test('reads nothing of the client, and then splices both ways', async () => {
    const { lab, streams } = await inMemory();
    const client = streams.accept();
    const backend = streams.last();
    assert.equal(client.isPaused, true);
    assert.deepEqual([backend.options?.address.text, backend.options?.port], [FIRST, 443]);
    backend.connect();
    client.say('question');
    backend.say('answer');
    assert.deepEqual([backend.text, client.text], ['question', 'answer']);
    assert.deepEqual([lab.onlyFlow.bytesToBackend, lab.onlyFlow.bytesToClient], [8, 6]);
  });

  for (const [event, evidence] of [
    ['the error', 'ECONNREFUSED'],
    ['the timeout', 'connect timeout'],
  ] as const) {
    test(`tries the next backend at ${event}, and what comes late of the first is nothing to it`, async () => {
      const { lab, clock, streams } = await inMemory({ rule: ONE_PORT });
      streams.accept();
      const first = streams.last();
      clock.advance(4999);
      assert.equal(streams.dialled.length, 1);
      clock.advance(event === 'the timeout' ? 1 : 0);
      if (event === 'the error') first.fail(evidence);
      const second = streams.last();
      assert.equal(second.options?.address.text, SECOND);
      if (event === 'the timeout') {
        assert.deepEqual(first.calls, ['destroy']);
        first.close();
      }
      second.connect();
      const { placement, state } = lab.onlyFlow;
      assert.deepEqual(
        [placement?.backendId, placement?.reason, placement?.excluded, state],
        [`nvas/${SECOND}`, 'retry', [`nvas/${FIRST}`], 'established'],
      );
      const { connectFailures, connectRetries, flowsOpened, flowsActive } = lab.totals(FIRST);
      assert.deepEqual([connectFailures, connectRetries, flowsOpened, flowsActive], [1, 1, 0, 0]);
      const seconds = event === 'the timeout' ? 5 : 4.999;
      assert.deepEqual(lab.latencies, [{ backendId: `nvas/${SECOND}`, seconds }], 'from the first attempt');
      assert.equal(clock.pendingTimers, 1, 'only of the events');
      const passive = lab.flushEvents().find(({ type }) => type === 'passive-failure');
      assert.ok(passive?.type === 'passive-failure');
      assert.deepEqual([passive.backendId, passive.evidence], [`nvas/${FIRST}`, evidence]);
    });
  }

  test('resets the client when every attempt fails', async () => {
    const { lab, streams } = await inMemory({
      backends: [FIRST, SECOND, THIRD],
      pool: { connectAttempts: 2 },
      rule: ONE_PORT,
    });
    const client = streams.accept();
    for (let attempt = 0; attempt < 2; attempt++) streams.last().fail('ECONNREFUSED');
    assert.deepEqual([client.calls, lab.flowCount, streams.dialled.length], [['reset'], 0, 2]);
    assert.deepEqual(lab.endsOf(SECOND), { 'connect-failed': 1 });
    assert.equal(lab.totals(THIRD).connectFailures, 0);
  });

  describe('a refusal at one of many ports', () => {
    const failures = (lab: TcpLab) =>
      [FIRST, SECOND].map((address) => lab.totals(address).connectFailures).join();
    const told = (lab: TcpLab) => lab.flushEvents().map(({ type }) => type);

    test('is the answer to the client: RST, no other backend, and only a probe comes sooner', async () => {
      const { lab, clock, streams } = await inMemory();
      for (let port = 4000; port < 4005; port++) {
        const client = streams.accept('192.0.2.1', port);
        streams.last().fail('ECONNREFUSED');
        assert.deepEqual([client.calls, lab.flowCount], [['reset'], 0]);
      }
      assert.deepEqual([streams.dialled.length, failures(lab)], [5, '0,0']);
      assert.deepEqual(lab.endsOf(FIRST), { refused: 5 });
      assert.deepEqual(
        told(lab).filter((type) => type !== 'flow-ended'),
        ['port-refused'],
      );
      clock.advance(500);
      streams.accept('192.0.2.1', 4005);
      streams.last().fail('ECONNREFUSED');
      assert.ok(told(lab).includes('port-refused'));
    });

    test('is a failure of the backend where the port was open in the last hour', async () => {
      const { lab, clock, streams } = await inMemory();
      streams.accept();
      streams.last().connect();
      streams.accept('192.0.2.1', 4001);
      streams.last().fail('ECONNREFUSED');
      assert.deepEqual([streams.last().options?.address.text, failures(lab)], [SECOND, '1,0']);
      streams.last().connect();
      clock.advance(3_599_000);
      streams.accept('192.0.2.1', 4002);
      streams.last().fail('ECONNREFUSED');
      assert.deepEqual([streams.last().options?.address.text, failures(lab)], [SECOND, '2,0']);
      streams.last().connect();
      clock.advance(3_601_000);
      streams.accept('192.0.2.1', 4003);
      streams.last().fail('ECONNREFUSED');
      assert.equal(failures(lab), '2,0');
    });

    test('is a failure of the backend where its probe says so', async () => {
      const { lab, streams } = await inMemory({ backends: [{ address: FIRST, health: 'down' }, SECOND] });
      streams.accept();
      streams.last().fail('ECONNREFUSED');
      assert.deepEqual([streams.last().options?.address.text, failures(lab)], [SECOND, '1,0']);
    });

    test('is a failure no more once the configuration has forgotten the backend', async () => {
      const { lab, streams } = await inMemory();
      streams.accept();
      streams.last().connect();
      lab.manager.apply(testState({ backends: [SECOND], digest: 'b'.repeat(64) }));
      lab.manager.apply(testState({ backends: [FIRST, SECOND], digest: 'c'.repeat(64) }));
      streams.accept('192.0.2.1', 4001);
      streams.last().fail('ECONNREFUSED');
      assert.deepEqual(failures(lab), '0,0');
    });
  });

  test('moves to another backend when policy would reset, and keeps its client', async () => {
    const { lab, streams } = await inMemory({ rule: { flowPolicy: RESETS } });
    const client = streams.accept();
    const first = streams.last();
    lab.manager.apply(testState({ backends: [DOWN, SECOND], rule: { flowPolicy: RESETS } }));
    assert.deepEqual(first.calls, ['destroy']);
    first.close();
    const second = streams.last();
    assert.equal(second.options?.address.text, SECOND);
    second.connect();
    client.say('hello');
    assert.equal(second.text, 'hello');
    assert.equal(lab.onlyFlow.placement?.backendId, `nvas/${SECOND}`);
    assert.deepEqual(lab.endsOf(FIRST), {});
  });

  test('is reset by that policy when no other backend is eligible, or once it is connected', async () => {
    const lonely = await inMemory({ rule: { flowPolicy: RESETS } });
    const client = lonely.streams.accept();
    const backends = [DOWN, { address: SECOND, valid: false }];
    lonely.lab.manager.apply(testState({ backends, rule: { flowPolicy: RESETS } }));
    assert.deepEqual([client.calls, lonely.lab.endsOf(FIRST)], [['reset'], { 'probe-down': 1 }]);
    const { lab, spliced } = await inMemory({ rule: { flowPolicy: RESETS } });
    spliced();
    lab.manager.apply(testState({ backends: [DOWN, SECOND], rule: { flowPolicy: RESETS } }));
    assert.deepEqual(lab.endsOf(FIRST), { 'probe-down': 1 });
  });

  test('ends without a trace at the backend', async () => {
    const { lab, streams } = await inMemory();
    const client = streams.accept();
    lab.manager.end(lab.onlyFlow, 'removed', 'reset');
    assert.deepEqual([client.calls, streams.last().calls, lab.flowCount], [['reset'], ['reset'], 0]);
    assert.equal(lab.flushEvents().filter(({ type }) => type === 'passive-failure').length, 0);
  });

  test('tries other ports when one is taken, and gives each back', async () => {
    const { lab, clock, streams } = await inMemory(FROM_SOURCE);
    streams.accept();
    streams.last().fail('EADDRINUSE', 'bind');
    await turn();
    const [first, second] = streams.dialled;
    assert.deepEqual([first?.options?.local?.port, second?.options?.local?.port], [32768, 32769]);
    assert.equal(lab.sourcePorts.uses()[0]?.used, 2);
    second?.connect();
    assert.equal(lab.onlyFlow.state, 'established');
    lab.manager.end(lab.onlyFlow, 'shutdown', 'reset');
    second?.close();
    clock.advance(60_000);
    assert.deepEqual(lab.sourcePorts.uses(), []);
  });

  test('tries the next source address when one is not of this machine, and then gives up', async () => {
    const sourceAddresses = ['10.0.0.8', '10.0.0.9'].map(ipAddress);
    const { lab, streams } = await inMemory({ pool: { sourceAddresses } });
    const client = streams.accept();
    for (const { text } of sourceAddresses) {
      assert.equal(streams.last().options?.local?.address.text, text);
      streams.last().fail('EADDRNOTAVAIL', 'bind');
      await turn();
    }
    assert.deepEqual([client.calls, lab.drops()], [['reset'], { 'ports-exhausted': 1 }]);
  });

  test('ends while it waits for another port', async () => {
    const { lab, streams } = await inMemory(FROM_SOURCE);
    streams.accept();
    streams.last().fail('EADDRINUSE', 'bind');
    lab.manager.end(lab.onlyFlow, 'shutdown', 'reset');
    await turn();
    assert.equal(streams.dialled.length, 1);
  });

  test('never connects to itself, whoever chooses the port', async () => {
    // The one source port allowed is the backend's own port, on the backend's own address.
    const pool = { sourceAddresses: [ipAddress(FIRST)], sourcePorts: portSetOf(443) };
    const own = await inMemory({ backends: [FIRST], pool });
    assert.deepEqual([own.streams.accept().calls, own.streams.dialled.length], [['reset'], 0]);
    assert.deepEqual(own.lab.drops(), { 'ports-exhausted': 1 });

    const kernels = await inMemory({ rule: ONE_PORT }, { source: ipAddress(FIRST) });
    kernels.streams.accept();
    const first = kernels.streams.last();
    first.local = { address: FIRST, port: 443 };
    first.connect();
    assert.equal(first.calls[0], 'reset');
    assert.equal(kernels.streams.last().options?.address.text, SECOND);
  });
});

describe('TcpConnection without a backend', () => {
  test('sends flows past a backend at its cap, and refuses when all are full', async () => {
    const backends = [FIRST, SECOND].map((address) => ({ address, backend: { maxConnections: 1 } }));
    const { lab, streams, spliced } = await inMemory({ backends });
    const { client } = spliced();
    spliced();
    assert.deepEqual(
      streams.dialled.map(({ options }) => options?.address.text),
      [FIRST, SECOND],
    );
    assert.deepEqual([streams.accept().calls, lab.drops()], [['reset'], { 'backends-full': 1 }]);
    client.fail('ECONNRESET');
    lab.manager.end([...lab.manager.table.all()][0]!, 'shutdown', 'reset');
    spliced();
    assert.equal(streams.last().options?.address.text, FIRST);
  });

  test('resets when no backend is eligible', async () => {
    const { lab, streams } = await inMemory(INELIGIBLE);
    assert.deepEqual(streams.accept().calls, ['reset']);
    assert.deepEqual([lab.drops(), lab.arrivals(), lab.flowCount], [{ 'no-backend': 1 }, 1, 0]);
  });

  test('is served as fail-open when the rule says so', async () => {
    const { lab, spliced } = await inMemory({
      ...INELIGIBLE,
      rule: { allDown: 'fail-open' },
      failOpen: true,
    });
    assert.equal(spliced().backend.options?.address.text, FIRST);
    assert.equal(lab.onlyFlow.placement?.reason, 'fail-open');
  });

  test('is admitted by the frontend lists and the budget of its source', async () => {
    const deny = [parseCidr('192.0.2.66/32')!];
    const { lab, streams } = await inMemory({ frontend: { deny }, limits: { tcpFlowsPerSource: 1 } });
    assert.deepEqual([streams.accept('192.0.2.66').calls, lab.drops()], [['reset'], { denied: 1 }]);
    assert.deepEqual(streams.accept('192.0.2.67').calls, []);
    assert.deepEqual(streams.accept('192.0.2.67', 4001).calls, ['reset']);
    assert.deepEqual([lab.drops(), lab.arrivals()], [{ denied: 1, 'source-cap': 1 }, 3]);
  });
});

describe('TcpConnection once it is spliced', () => {
  test('reads one side no faster than the other takes', async () => {
    const { client, backend } = (await inMemory()).spliced();
    client.hasRoom = false;
    backend.say('much');
    assert.deepEqual([backend.isPaused, client.isPaused], [true, false]);
    client.drain();
    assert.equal(backend.isPaused, false);
  });

  test('passes FIN on as FIN, and ends when both sides are closed', async () => {
    const { lab, spliced } = await inMemory();
    const { client, backend } = spliced();
    client.end();
    assert.deepEqual(backend.calls, ['shutdown']);
    assert.equal(lab.onlyFlow.state, 'half-closed');
    backend.say('rest');
    backend.end();
    assert.deepEqual([client.text, client.calls.at(-1)], ['rest', 'shutdown']);
    backend.close();
    assert.equal(lab.flowCount, 1);
    client.close();
    assert.equal(lab.flowCount, 0);
    assert.deepEqual(lab.endsOf(FIRST), { closed: 1 });
  });

  test('passes RST on once what came before has left, and not later than 2 s', async () => {
    for (const drains of [true, false]) {
      const { lab, clock, spliced } = await inMemory();
      const { client, backend } = spliced();
      backend.say('last words');
      client.waitingBytes = 10;
      backend.fail('ECONNRESET');
      assert.deepEqual(client.calls.slice(1), ['notifyDrained']);
      assert.equal(client.isPaused, true);
      clock.advance(1000);
      if (drains) {
        client.drain();
        clock.advance(19);
        assert.equal(lab.flowCount, 1);
        clock.advance(1);
      } else {
        assert.equal(lab.flowCount, 1);
        clock.advance(1000);
      }
      assert.equal(client.calls.at(-1), 'reset');
      assert.deepEqual(lab.endsOf(FIRST), { 'backend-reset': 1 });
    }
  });

  test('stays with its client when it is blackholed, whatever the backend does then', async () => {
    const { lab, spliced } = await inMemory();
    const { client, backend } = spliced();
    lab.manager.blackhole(lab.onlyFlow);
    assert.deepEqual(backend.calls, ['reset']);
    assert.equal(lab.manager.table.use('embryonic').used, 1);
    backend.close();
    client.say('x'.repeat(64 * 1024 - 1));
    assert.equal(client.isPaused, false);
    client.say('x');
    assert.equal(client.isPaused, true);
    assert.equal(lab.flowCount, 1);
    client.fail('ECONNRESET');
    assert.equal(lab.flowCount, 0);
  });
});

describe('a captured TCP listener', () => {
  const plan: CapturePlan = { udp: 'bind', port: 443, block: parseCidr('240.0.0.0/4')! };
  const [slot = 0] = captureSlots([ipAddress('127.0.0.1')], plan.block).values();
  const addressOf = (port: number): string => captureAddress(4, slot, port, plan.block).text;

  /** Of the frontend, these ports are captured. */
  function captured(text: string, manager: FlowManager): Captured {
    const { configuration } = manager.state;
    const { rules } = testState({ backends: [], rule: { ports: parsePortSet(text)! } }).configuration;
    const parts = { slots: manager.slotsFor(configuration), rulePorts: new RulePorts(rules) };
    return { protocol: 'tcp', frontends: new CapturedFrontends(configuration, parts, 'tcp', plan) };
  }

  test('serves the port that a private address stands for, and resets all else', async () => {
    const { lab, streams } = await inMemory(
      {},
      { capture: plan, captured: (manager) => captured('8080', manager) },
    );
    const connect = (address: string): FakeStream =>
      streams.accept('192.0.2.1', 4000, { address, port: 443 });
    assert.deepEqual(connect(addressOf(8080)).calls, []);
    assert.equal(streams.last().options?.port, 8080);
    assert.equal(formatFiveTuple(lab.onlyFlow.tuple), 'tcp 192.0.2.1:4000 -> 127.0.0.1:8080');
    for (const address of [addressOf(8081), '127.0.0.1']) assert.deepEqual(connect(address).calls, ['reset']);
    assert.deepEqual([lab.arrivals(), lab.drops()], [1, { 'unknown-origin': 2 }]);
    // As after a reload.
    lab.captured = captured('8081', lab.manager);
    assert.deepEqual(connect(addressOf(8080)).calls, ['reset']);
    assert.deepEqual(connect(addressOf(8081)).calls, []);
  });

  test('is not opened without a plan', async () => {
    await assert.rejects(inMemory({}, { captured: (manager) => captured('1', manager) }), TypeError);
  });
});
