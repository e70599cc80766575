import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { captureInputs, unwanted, type PortInUse } from '../../../../src/planes/capture/ports-in-use.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { CapturePlan } from '../../../../src/model/capture.js';
import { formatPortSet } from '../../../../src/model/ports.js';
import { captured } from './capture-fixtures.js';

function inUse(...texts: readonly string[]): readonly PortInUse[] {
  return texts.map((text, index) => {
    const [protocol = '', address = '', port = ''] = text.split(' ');
    return {
      protocol: protocol === 'udp' ? 'udp' : 'tcp',
      address: ipAddress(address),
      port: Number(port),
      inode: String(index),
    };
  });
}

const { configuration, plan } = captured();

/** Ports of the two frontends as `tcp4 udp4 tcp6 udp6`, and the failures. */
function steered(ports: readonly PortInUse[], how: CapturePlan = plan) {
  const { input, failures, taken } = captureInputs(configuration, how, ports);
  return {
    ports: input.frontends.map(({ ports: { tcp, udp } }) => `${formatPortSet(tcp)} | ${formatPortSet(udp)}`),
    failures: failures.map(
      ({ rule, protocol, address, port, errorCode }) => `${rule} ${protocol} ${address} ${port} ${errorCode}`,
    ),
    taken: taken.map(({ inode }) => inode),
  };
}

describe('captureInputs()', () => {
  test('takes the union of the ports of a frontend`s rules', () => {
    assert.deepEqual(steered([]).ports, ['8000-8099,9000 | 8000-8099', '8000-8099 | 8000-8099']);
    assert.deepEqual(steered([]).failures, []);
  });

  test('leaves alone what others have on the address or on all, with the rule that would have it', () => {
    const { ports, failures, taken } = steered(
      inUse(
        'tcp 10.0.0.9 8001',
        'tcp 0.0.0.0 9000',
        'udp 0.0.0.0 8002',
        'tcp 10.0.0.1 8003',
        'tcp 0.0.0.0 22',
      ),
    );
    assert.deepEqual(ports, ['8000,8002-8099 | 8000-8001,8003-8099', '8000-8099 | 8000-8099']);
    assert.deepEqual(failures, [
      'all tcp 10.0.0.9 8001 EADDRINUSE',
      'web tcp 10.0.0.9 9000 EADDRINUSE',
      'all udp 10.0.0.9 8002 EADDRINUSE',
    ]);
    assert.deepEqual(taken, ['0', '1', '2']);
  });

  test('takes a socket on all IPv6 addresses for one that has IPv4 too, and not the other way round', () => {
    assert.deepEqual(steered(inUse('tcp :: 8001')).failures, [
      'all tcp 10.0.0.9 8001 EADDRINUSE',
      'all6 tcp 2001:db8::9 8001 EADDRINUSE',
    ]);
    assert.deepEqual(steered(inUse('tcp 0.0.0.0 8001')).failures, ['all tcp 10.0.0.9 8001 EADDRINUSE']);
  });

  test('does not take its own socket for another`s', () => {
    const own = { ...plan, port: 8050 };
    assert.deepEqual(steered(inUse('tcp 0.0.0.0 8050', 'tcp :: 8050'), own).failures, []);
    assert.equal(steered(inUse('udp 0.0.0.0 8050'), own).failures.length, 1);
  });

  test('steers no UDP where UDP ports are bound', () => {
    const { ports, failures } = steered(inUse('udp 0.0.0.0 8002'), { ...plan, udp: 'bind' });
    assert.deepEqual(ports, ['8000-8099,9000 | ', '8000-8099 | ']);
    assert.deepEqual(failures, []);
  });

  test('has the kernel remember UDP flows a minute longer than the longest idle timeout', () => {
    assert.equal(captureInputs(configuration, plan, []).input.udpEntrySeconds, 90 + 60);
  });

  test('without workers there is one socket all the same', () => {
    assert.equal(captureInputs({ ...configuration, workers: 0 }, plan, []).input.workers, 1);
    assert.equal(captureInputs({ ...configuration, workers: 3 }, plan, []).input.workers, 3);
  });
});

test('unwanted() gives ports of which a configuration has not the protocol, the address or the number', () => {
  const { failures } = captureInputs(configuration, plan, inUse('tcp 10.0.0.9 9000'));
  const [known] = failures;
  assert.ok(known);
  const others = [{ protocol: 'udp' }, { address: '10.0.0.8' }, { port: 9001 }] as const;
  const all = [known, ...others.map((change) => ({ ...known, ...change }))];
  assert.deepEqual(unwanted(all, configuration), all.slice(1));
});
