import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runCommand } from '../support/commands.js';
import { eventually } from '../support/deadline.js';
import { isAlive } from '../support/haports-process.js';
import { Lab, useLab, whyNoNamespaces } from '../support/lab.js';
import { names } from '../support/traffic.js';

describe('Lab', { skip: whyNoNamespaces() }, () => {
  const { left, right } = useLab({
    left: { links: { right: ['10.9.0.1/24', 'fd00:9::1/64'] } },
    right: { links: { left: ['10.9.0.2/24', 'fd00:9::2/64'] } },
  }).hosts;

  test('links join two hosts, IPv4 and IPv6, at once', async () => {
    const flows = ['10.9.0.2', 'fd00:9::2'].map((host) => ({ protocol: 'tcp' as const, host, port: 9 }));
    // Refused, not timed out: the other end has answered.
    assert.deepEqual(names(await left.traffic().ask(flows)), ['ECONNREFUSED', 'ECONNREFUSED']);
  });

  test('nft() and sysctl() change only the host they are called on', async () => {
    await right.nft('table inet own { chain c { }; }');
    await right.sysctl('net.ipv4.ip_forward', 1);
    assert.match(await right.must('nft list tables'), /inet own/);
    assert.equal((await left.must('nft list tables')).trim(), '');
    assert.equal((await left.must('cat /proc/sys/net/ipv4/ip_forward')).trim(), '0');
    assert.doesNotMatch((await runCommand('nft', ['list', 'tables'])).stdout, /inet own/);
  });

  test('close() ends what runs inside, grandchildren too, and leaves no namespace', async () => {
    const other = new Lab({ one: {} });
    await other.open();
    const { one } = other.hosts;
    one.spawn(['sh', '-c', 'sleep 600 & wait']);
    const pids = await eventually(
      () => {
        const inside = one.pids();
        return inside.length === 2 && inside;
      },
      10_000,
      'both processes',
    );
    await other.close();
    for (const pid of pids) assert.equal(await isAlive(pid), false, `process ${pid}`);
    assert.doesNotMatch((await runCommand('ip', ['netns', 'list'])).stdout, new RegExp(one.namespace));
  });
});
