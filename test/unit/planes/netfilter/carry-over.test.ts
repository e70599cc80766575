import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { carriedText, replaceTable } from '../../../../src/planes/netfilter/nft.js';
import { type KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import { FakeKernel } from './fake-kernel.js';

const SETUP: KernelSetup = {
  table: 'haports',
  tag: 70_000,
  structure: 'table inet haports {\n  set near { type ether_addr; }\n  map flows { type mark : mark; }\n}',
  sets: new Map(),
  routing: [],
  carried: ['near', 'flows', 'absent'],
};

function kernel(): FakeKernel {
  const fake = new FakeKernel();
  fake.intercept = (_tool, line) => {
    if (line === 'list set inet haports near') {
      return {
        stdout:
          'table inet haports {\n set near {\n elements = { 02:00:00:00:00:11 expires 9m,\n 02:00:00:00:00:12 expires 1s }\n }\n}\n',
      };
    }
    if (line === 'list map inet haports flows')
      return { stdout: 'table inet haports {\n map flows {\n }\n}\n' };
    return line.startsWith('list set') ? { exitCode: 1, stderr: 'No such file or directory' } : undefined;
  };
  return fake;
}

const CARRIED =
  'add element inet haports near { 02:00:00:00:00:11 expires 9m,\n 02:00:00:00:00:12 expires 1s }\n';

describe('carriedText()', () => {
  test('carriedText() adds what the old table has, and nothing for what is empty or absent', async () => {
    assert.equal(await carriedText(kernel(), SETUP), CARRIED);
    assert.equal(await carriedText(kernel(), { ...SETUP, carried: [] }), '');
  });

  test('carriedText() gives an element the time that it has left', async () => {
    const fake = kernel();
    const stdout =
      'table inet haports {\n map flows {\n elements = { 0x1 timeout 20s expires 3m59s9ms : 0x2 }\n }\n}\n';
    fake.intercept = () => ({ stdout });
    assert.equal(
      await carriedText(fake, { ...SETUP, carried: ['flows'] }),
      'add element inet haports flows { 0x1 timeout 3m59s9ms : 0x2 }\n',
    );
  });

  test('replaceTable() carries over in the same transaction', async () => {
    const fake = kernel();
    await replaceTable(fake, SETUP);
    assert.equal(fake.written.length, 1);
    assert.ok(fake.written[0]?.endsWith(CARRIED));
  });

  test('replaceTable() does without where the new table does not take it', async () => {
    const fake = kernel();
    const { intercept } = fake;
    fake.intercept = (tool, line, input) =>
      input.endsWith(CARRIED)
        ? { exitCode: 1, stderr: 'Could not process rule' }
        : intercept?.(tool, line, input);
    await replaceTable(fake, SETUP);
    assert.equal(fake.written.length, 1);
    assert.ok(fake.written[0]?.includes('map flows'));
    assert.ok(!fake.written[0]?.includes('add element'));
  });
});
