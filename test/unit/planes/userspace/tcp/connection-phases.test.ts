import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import { ipAddress } from '../../../../../src/model/address.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { createTcpListenerFactory } from '../../../../../src/planes/userspace/tcp/listener.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { FakeClock } from '../../../../support/fake-clock.js';
import { FakeStreams, type FakeStream } from '../../../../support/fake-streams.js';
import { AZURE_POLICY, testState, type TestStateParts } from '../../../../support/forwarding-state.js';
import { NOTHING_INHERITED } from './tcp-lab.js';

/* TcpConnection phase by phase, over streams in memory. What sockets make of it is in tcp-connection.test.ts. */

const [FIRST, SECOND] = ['10.0.0.1', '10.0.0.2'] as const;
const RESETS = { ...AZURE_POLICY, 'probe-down': { tcp: 'reset', udp: 'reset' } } as const;

class Lab {
  readonly clock = new FakeClock();
  readonly streams = new FakeStreams();
  readonly manager: FlowManager;
  readonly sourcePorts: SourcePorts;

  private constructor(state: ForwardingState) {
    const { clock } = this;
    const events = new EventQueue(clock);
    this.manager = new FlowManager({ clock, events }, { flowEvents: false, worker: 0, workers: 1 }, state);
    this.sourcePorts = new SourcePorts({ clock, events, random: () => 0 });
  }

  static async open(parts: Partial<TestStateParts> = {}): Promise<Lab> {
    const state = testState({ backends: [FIRST, SECOND], ...parts });
    const lab = new Lab(state);
    const factory = createTcpListenerFactory({
      manager: lab.manager,
      picker: new Picker(() => 0),
      sockets: lab.streams,
      sourcePorts: lab.sourcePorts,
      routeSource: new RouteSource({
        clock: lab.clock,
        lookUp: () => Promise.resolve(ipAddress('10.0.0.9')),
      }),
      onConnectLatency: () => undefined,
    });
    const slot = lab.manager.slotsFor(state.configuration)[0]!;
    const listener = await factory.open(
      { protocol: 'tcp', address: ipAddress('127.0.0.1'), port: 443, slot },
      NOTHING_INHERITED,
    );
    listener.serve();
    return lab;
  }

  /** A client, and the stream to the backend that took it. */
  spliced(): { readonly client: FakeStream; readonly backend: FakeStream } {
    const client = this.streams.accept();
    const backend = this.streams.last();
    backend.connect();
    return { client, backend };
  }

  get onlyFlow() {
    const [flow] = this.manager.table.all();
    assert.ok(flow !== undefined, 'there is a flow');
    return flow;
  }

  ends(address: string): object {
    return { ...this.manager.traffic.of('ha-ports', `nvas/${address}`, 'tcp').flowsEnded };
  }
}

describe('TcpConnection while it is dialling', () => {
  test('reads nothing of the client, and then splices both ways', async () => {
    const lab = await Lab.open();
    const client = lab.streams.accept();
    const backend = lab.streams.last();
    assert.equal(client.isPaused, true);
    assert.deepEqual([backend.options?.address.text, backend.options?.port], [FIRST, 443]);
    backend.connect();
    client.say('question');
    backend.say('answer');
    assert.deepEqual([backend.text, client.text], ['question', 'answer']);
    assert.deepEqual([lab.onlyFlow.bytesToBackend, lab.onlyFlow.bytesToClient], [8, 6]);
  });

  for (const event of ['the error', 'the timeout'] as const) {
    test(`tries the next backend at ${event}, and what comes late of the first is nothing to it`, async () => {
      const lab = await Lab.open();
      lab.streams.accept();
      const first = lab.streams.last();
      if (event === 'the error') first.fail('ECONNREFUSED');
      else lab.clock.advance(5000);
      const second = lab.streams.last();
      assert.equal(second.options?.address.text, SECOND);
      if (event === 'the timeout') {
        assert.deepEqual(first.calls, ['destroy']);
        first.close();
      }
      second.connect();
      assert.equal(lab.onlyFlow.state, 'established');
      assert.equal(lab.clock.pendingTimers, 1, 'only of the events');
    });
  }

  test('moves to another backend when policy would reset, and keeps its client', async () => {
    const lab = await Lab.open({ rule: { flowPolicy: RESETS } });
    const client = lab.streams.accept();
    const first = lab.streams.last();
    const down = { address: FIRST, valid: false } as const;
    lab.manager.apply(testState({ backends: [down, SECOND], rule: { flowPolicy: RESETS } }));
    assert.deepEqual(first.calls, ['destroy']);
    first.close();
    const second = lab.streams.last();
    assert.equal(second.options?.address.text, SECOND);
    second.connect();
    client.say('hello');
    assert.equal(second.text, 'hello');
    assert.equal(lab.onlyFlow.placement?.backendId, `nvas/${SECOND}`);
    assert.deepEqual(lab.ends(FIRST), {});
  });

  test('is reset by that policy when no other backend is eligible, or once it is connected', async () => {
    const down = { address: FIRST, valid: false } as const;
    const lonely = await Lab.open({ rule: { flowPolicy: RESETS } });
    const client = lonely.streams.accept();
    lonely.manager.apply(
      testState({ backends: [down, { address: SECOND, valid: false }], rule: { flowPolicy: RESETS } }),
    );
    assert.deepEqual([client.calls, lonely.ends(FIRST)], [['reset'], { 'probe-down': 1 }]);
    const lab = await Lab.open({ rule: { flowPolicy: RESETS } });
    lab.spliced();
    lab.manager.apply(testState({ backends: [down, SECOND], rule: { flowPolicy: RESETS } }));
    assert.deepEqual(lab.ends(FIRST), { 'probe-down': 1 });
  });

  test('tries other ports when one is taken, and gives each back', async () => {
    const lab = await Lab.open({ pool: { sourceAddresses: [ipAddress('10.0.0.9')] } });
    lab.streams.accept();
    lab.streams.last().fail('EADDRINUSE', 'bind');
    await new Promise((resolve) => setImmediate(resolve));
    const [first, second] = lab.streams.dialled;
    assert.deepEqual([first?.options?.local?.port, second?.options?.local?.port], [32768, 32769]);
    assert.equal(lab.sourcePorts.uses()[0]?.used, 2);
    second?.connect();
    assert.equal(lab.onlyFlow.state, 'established');
    lab.manager.end(lab.onlyFlow, 'shutdown', 'reset');
    second?.close();
    lab.clock.advance(60_000);
    assert.deepEqual(lab.sourcePorts.uses(), []);
  });

  test('tries the next source address when one is not of this machine, and then gives up', async () => {
    const sourceAddresses = ['10.0.0.8', '10.0.0.9'].map(ipAddress);
    const lab = await Lab.open({ pool: { sourceAddresses } });
    const client = lab.streams.accept();
    for (const source of ['10.0.0.8', '10.0.0.9']) {
      assert.equal(lab.streams.last().options?.local?.address.text, source);
      lab.streams.last().fail('EADDRNOTAVAIL', 'bind');
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(client.calls, ['reset']);
    assert.deepEqual(lab.manager.traffic.arrivals('ha-ports', 'tcp').drops, { 'ports-exhausted': 1 });
  });

  test('ends while it waits for another port', async () => {
    const lab = await Lab.open({ pool: { sourceAddresses: [ipAddress('10.0.0.9')] } });
    lab.streams.accept();
    lab.streams.last().fail('EADDRINUSE', 'bind');
    lab.manager.end(lab.onlyFlow, 'shutdown', 'reset');
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(lab.streams.dialled.length, 1);
  });
});

describe('TcpConnection once it is spliced', () => {
  test('reads one side no faster than the other takes', async () => {
    const lab = await Lab.open();
    const { client, backend } = lab.spliced();
    client.hasRoom = false;
    backend.say('much');
    assert.deepEqual([backend.isPaused, client.isPaused], [true, false]);
    client.drain();
    assert.equal(backend.isPaused, false);
  });

  test('passes FIN on as FIN, and ends when both sides are closed', async () => {
    const lab = await Lab.open();
    const { client, backend } = lab.spliced();
    client.end();
    assert.deepEqual(backend.calls, ['shutdown']);
    assert.equal(lab.onlyFlow.state, 'half-closed');
    backend.say('rest');
    backend.end();
    assert.deepEqual([client.text, client.calls.at(-1)], ['rest', 'shutdown']);
    backend.close();
    assert.equal(lab.manager.table.size, 1);
    client.close();
    assert.equal(lab.manager.table.size, 0);
    assert.deepEqual(lab.ends(FIRST), { closed: 1 });
  });

  test('passes RST on once what came before has left, and not later than 2 s', async () => {
    for (const drains of [true, false]) {
      const lab = await Lab.open();
      const { client, backend } = lab.spliced();
      backend.say('last words');
      client.waitingBytes = 10;
      backend.fail('ECONNRESET');
      assert.deepEqual(client.calls.slice(1), ['notifyDrained']);
      assert.equal(client.isPaused, true);
      lab.clock.advance(1000);
      if (drains) {
        client.drain();
        lab.clock.advance(19);
        assert.equal(lab.manager.table.size, 1);
        lab.clock.advance(1);
      } else {
        assert.equal(lab.manager.table.size, 1);
        lab.clock.advance(1000);
      }
      assert.equal(client.calls.at(-1), 'reset');
      assert.deepEqual(lab.ends(FIRST), { 'backend-reset': 1 });
    }
  });

  test('stays with its client when it is blackholed, whatever the backend does then', async () => {
    const lab = await Lab.open();
    const { client, backend } = lab.spliced();
    lab.manager.blackhole(lab.onlyFlow);
    assert.deepEqual(backend.calls, ['reset']);
    backend.close();
    client.say('x'.repeat(64 * 1024 - 1));
    assert.equal(client.isPaused, false);
    client.say('x');
    assert.equal(client.isPaused, true);
    assert.equal(lab.manager.table.size, 1);
    client.fail('ECONNRESET');
    assert.equal(lab.manager.table.size, 0);
  });
});
