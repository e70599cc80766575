import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { runCommand } from '../support/commands.js';
import { isAlive } from '../support/haports-process.js';
import { NamespaceLab, whyNoNamespaces } from '../support/namespaces.js';

void describe('NamespaceLab', { skip: whyNoNamespaces() }, () => {
  let lab: NamespaceLab;
  before(async () => {
    lab = await NamespaceLab.create('left', 'right');
    await lab.link(
      { in: 'left', addresses: ['10.9.0.1/24', 'fd00:9::1/64'] },
      { in: 'right', addresses: ['10.9.0.2/24', 'fd00:9::2/64'] },
    );
  });
  after(() => lab.close());

  void test('link() joins two namespaces, IPv4 and IPv6, at once', async () => {
    for (const address of ['10.9.0.2', 'fd00:9::2']) {
      const program = `const s = require('node:net').connect(9, '${address}'); s.on('error', (e) => console.log(e.code))`;
      const { stdout } = await lab.run('left', process.execPath, ['-e', program]);
      // Refused, not timed out: the other end has answered.
      assert.equal(stdout.trim(), 'ECONNREFUSED', address);
    }
  });

  void test('nft() and sysctl() change only the namespace they name', async () => {
    await lab.nft('right', 'table inet own { chain c { }; }');
    await lab.sysctl('right', 'net.ipv4.ip_forward', 1);
    assert.match(await lab.must('right', 'nft', ['list', 'tables']), /inet own/);
    assert.equal((await lab.must('left', 'nft', ['list', 'tables'])).trim(), '');
    assert.equal((await lab.must('left', 'cat', ['/proc/sys/net/ipv4/ip_forward'])).trim(), '0');
    assert.doesNotMatch((await runCommand('nft', ['list', 'tables'])).stdout, /inet own/);
  });

  void test('close() ends what runs inside, grandchildren too, and leaves no namespace', async () => {
    const other = await NamespaceLab.create('one');
    other.spawn('one', 'sh', ['-c', 'sleep 600 & wait']);
    let pids: readonly number[] = [];
    while (pids.length < 2) {
      pids = await pidsIn(other.full('one'));
    }
    await other.close();
    for (const pid of pids) assert.equal(await isAlive(pid), false, `process ${pid}`);
    assert.doesNotMatch((await runCommand('ip', ['netns', 'list'])).stdout, new RegExp(other.full('one')));
  });
});

async function pidsIn(full: string): Promise<readonly number[]> {
  const { stdout } = await runCommand('ip', ['netns', 'pids', full]);
  return stdout.split('\n').filter(Boolean).map(Number);
}
