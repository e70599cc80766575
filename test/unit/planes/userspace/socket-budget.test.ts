import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import {
  planListeners,
  rendezvousOwner,
  shortageAdvice,
  socketBudget,
  type BudgetRequest,
} from '../../../../src/planes/userspace/listen-plan.js';
import { ipAddress, parseCidr } from '../../../../src/model/address.js';
import { parsePortSet } from '../../../../src/model/ports.js';
import { createHasher } from '../../../../src/selection/flow-hash.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

const OWN = ['127.0.0.1', '10.0.0.1'].map(ipAddress);

function withPorts(text: string, address = '198.51.100.1') {
  const ports = parsePortSet(text) ?? assert.fail(text);
  return aConfiguration({
    frontends: [aFrontend({ address: ipAddress(address) })],
    rules: [aRule({ ports }), aRule({ name: 'again', haPorts: false, ports })],
  });
}

function budget(text: string, workers: number, limit: number | undefined, more: Partial<BudgetRequest> = {}) {
  return socketBudget({
    ...{ configuration: withPorts(text), workers, limit, ownAddresses: () => OWN },
    ...more,
  });
}

void describe('socketBudget()', () => {
  test('counts each port once a protocol, whatever number of rules has it', () => {
    assert.deepEqual(budget('1-9000', 1, 20_000), { tcpPorts: 'shared', sockets: 18_000 });
    assert.deepEqual(budget('1-9001', 0, 20_000).shortage?.needed, 20_003);
    assert.deepEqual(budget('1-9001', 0, undefined), { tcpPorts: 'shared', sockets: 18_002 });
  });

  test('counts UDP on each own address of a wildcard frontend', () => {
    const configuration = withPorts('1-100', '0.0.0.0');
    assert.equal(budget('1', 1, 20_000, { configuration }).sockets, 100 + 2 * 100);
  });

  test('shares TCP ports while that fits the limit, and owns them where it does not', () => {
    assert.equal(budget('1-100', 8, 20_000).tcpPorts, 'shared');
    assert.equal(budget('1-5000', 8, 20_000).tcpPorts, 'shared');
    assert.equal(budget('1-5000', 8, 5_000).tcpPorts, 'owned');
    assert.equal(budget('1-65535', 8, 20_000).tcpPorts, 'owned');
  });

  test('owns TCP ports where handing them over would take minutes, though they fit', () => {
    assert.equal(budget('1-65535', 8, 1_000_000).tcpPorts, 'owned');
    assert.equal(budget('1-65535', 1, 1_000_000).tcpPorts, 'shared');
  });

  test('fits all ports of both protocols into 8 workers of 20,000 descriptors, and says so to one', () => {
    assert.equal(budget('1-65535', 8, 20_000).shortage, undefined);
    assert.deepEqual(budget('1-65535', 7, 20_000).shortage?.workers, 8);
    assert.deepEqual(budget('1-65535', 1, 20_000).shortage, { limit: 20_000, needed: 145_634, workers: 8 });
  });

  test('knows no number of workers under a limit that is far too low', () => {
    const { shortage } = budget('1-65535', 8, 1024);
    assert.equal(shortage?.workers, undefined);
    assert.doesNotMatch(shortageAdvice(shortage ?? assert.fail()), /dataPlane.workers/);
  });

  test('keeps to a form that was decided before, and tells what that needs', () => {
    const { tcpPorts, shortage } = budget('1-65535', 8, 20_000, { tcpPorts: 'shared' });
    assert.equal(tcpPorts, 'shared');
    assert.ok(shortage !== undefined && shortage.needed > 80_000);
    assert.equal(shortage.workers, undefined);
    assert.equal(budget('1-10', 8, 20_000, { tcpPorts: 'owned' }).tcpPorts, 'owned');
  });

  test('needs a handful of sockets where ports are captured', () => {
    const block = parseCidr('240.0.0.0/4') ?? assert.fail();
    const capture = { udp: 'redirect', port: 61_000, block } as const;
    const { tcpPorts, sockets } = budget('1-65535', 8, 1024, { capture });
    assert.equal(tcpPorts, 'shared');
    assert.ok(sockets < 20, `${sockets} sockets`);
  });

  test('is never below what a worker really owns', async () => {
    const ownerOf = rendezvousOwner(await createHasher(), 8);
    const configuration = withPorts('1-65535');
    const { sockets } = budget('1-65535', 8, 20_000);
    let total = 0;
    for (let worker = 0; worker < 8; worker++) {
      const share = { worker, ownerOf, tcpPorts: 'owned' } as const;
      const own = planListeners(configuration, ruleSlots(configuration), () => OWN, share).size;
      assert.ok(own <= sockets, `${own} of ${sockets}`);
      total += own;
    }
    assert.equal(total, 2 * 65_535);
  });
});
