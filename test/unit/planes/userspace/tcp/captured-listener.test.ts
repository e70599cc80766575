import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { CapturedPorts, type CapturedFrontends } from '../../../../../src/planes/userspace/captured-ports.js';
import type { CapturePlan } from '../../../../../src/model/capture.js';
import { parseCidr } from '../../../../../src/model/address.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import { ruleSlots } from '../../../../../src/flows/flow.js';
import { within } from '../../../../support/deadline.js';
import { aState, backendOn, CaptureLab, expectedLine, host, ports, type State } from './captured-lab.js';
import { freePort, receive, type TestServer } from './tcp-lab.js';

/*
 * Captured listeners without a kernel that captures: a connection to an address of 127.0.0.0/8 is as one that was steered
 * there. test/kernel/capture-tcp.test.ts has the real thing.
 */

void describe('a captured TCP listener with private addresses', () => {
  const block = `${host(1).split('.').slice(0, 2).join('.')}.0.0/16`;
  const plan: CapturePlan = { udp: 'bind', port: 0, block: parseCidr(block)! };
  const prefix = block.split('.').slice(0, 2).join('.');
  const privateAddress = (port: number): string => `${prefix}.${port >> 8}.${port & 0xff}`;
  let backendPort = 0;
  let backend: TestServer;
  let lab: CaptureLab;
  let port = 0;

  /** Real slots cannot be in 127.0.0.0/8: here the hub has slot 0. */
  function frontendsOf({ configuration, views }: State): CapturedFrontends {
    const slots = ruleSlots(configuration).map((slot) => ({ ...slot, view: views[0] }));
    const hub = configuration.frontends[0]!;
    const owners = new RulePorts(configuration.rules).at('tcp', hub.address);
    const captured = new CapturedPorts(hub, slots[0]!, owners, slots);
    const frontends: Pick<CapturedFrontends, 'of' | 'numbered'> = {
      of: (address) => (address === host(1) ? captured : undefined),
      numbered: (slot) => (slot === 0 ? captured : undefined),
    };
    return frontends as CapturedFrontends;
  }

  before(async () => {
    backendPort = await freePort(host(200));
    backend = await backendOn(backendPort);
    const state = aState(ports(`${backendPort}`), ports('1'));
    lab = new CaptureLab(state, plan);
    port = await freePort('0.0.0.0');
    const listener = await lab.open(lab.binding(port, frontendsOf(state)));
    listener.serve();
  });

  after(() => {
    lab.close();
    backend.close();
  });

  test('serves the port that the private address stands for, from the frontend', async () => {
    const client = connect({ host: privateAddress(backendPort), port });
    const { text } = await within(receive(client), 5000, 'an answer');
    assert.match(text, expectedLine(host(1), backendPort));
    assert.equal(lab.arrivals('hub-rule'), 1);
  });

  test('resets connections to a port that no rule serves, and counts them', async () => {
    const before = lab.drops('hub-rule') as Record<string, number>;
    const other = backendPort === 65535 ? 1024 : backendPort + 1;
    for (const address of [privateAddress(other), '127.0.0.1']) {
      const client = connect({ host: address, port });
      assert.equal((await within(receive(client), 5000, 'a reset')).end, 'reset');
    }
    assert.equal((lab.drops('hub-rule') as Record<string, number>)['unknown-origin'], 2);
    assert.deepEqual(before, {});
    assert.equal(lab.arrivals('hub-rule'), 1);
  });

  test('serves what the present configuration has after a reload', async () => {
    const [listener] = lab.listeners;
    const other = aState(ports('1'), ports('1'), { digest: 'b'.repeat(64) });
    listener!.binding.captured = { protocol: 'tcp', frontends: frontendsOf(other) };
    const refused = connect({ host: privateAddress(backendPort), port });
    assert.equal((await within(receive(refused), 5000, 'a reset')).end, 'reset');
    const again = aState(ports(`${backendPort}`), ports('1'));
    listener!.binding.captured = { protocol: 'tcp', frontends: frontendsOf(again) };
    const served = connect({ host: privateAddress(backendPort), port });
    assert.match((await within(receive(served), 5000, 'an answer')).text, expectedLine(host(1), backendPort));
  });

  test('is not opened without a plan', async () => {
    const state = aState(ports('1'), ports('1'));
    const without = new CaptureLab(state);
    await assert.rejects(without.open(without.binding(0, frontendsOf(state))), TypeError);
  });
});
