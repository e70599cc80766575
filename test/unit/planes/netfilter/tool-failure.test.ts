import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parseToolVersion,
  toolFailure,
  usableTool,
  type Tool,
  type Tools,
} from '../../../../src/planes/netfilter/tools.js';

function failure(tool: Tool, stderr: string, reason?: string) {
  const ended = { exitCode: reason === undefined ? 1 : undefined, stdout: '', stderr };
  return toolFailure(tool, reason === undefined ? ended : { ...ended, failure: reason });
}

describe('toolFailure()', () => {
  test('names the package where a tool is missing', () => {
    const error = failure('ip', '', 'ENOENT');
    assert.deepEqual([error.code, error.source], ['LB_KERNEL_TOOL_MISSING', 'system']);
    assert.match(error.message, /ip is not installed.*apt-get install iproute2/);
  });

  test('names the capability where the kernel denies', () => {
    for (const stderr of [
      'Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted\n',
      'RTNETLINK answers: Operation not permitted\n',
    ]) {
      const error = failure('nft', stderr);
      assert.equal(error.code, 'LB_KERNEL_DENIED');
      assert.match(error.message, /CAP_NET_ADMIN/);
    }
  });

  test('tells what the kernel cannot do from what is wrong', () => {
    const unsupported =
      '/dev/stdin:3:5-9: Error: Could not process rule: No such file or directory\n  tproxy to :1\n  ^^^^^\n';
    assert.equal(failure('nft', unsupported).code, 'LB_KERNEL_UNSUPPORTED');
    const exists = failure('nft', '/dev/stdin:3:5-9: Error: Could not process rule: File exists\nadd ...\n');
    assert.equal(exists.code, 'LB_KERNEL_FAILED');
    assert.equal(exists.message, 'nft failed: /dev/stdin:3:5-9: Error: Could not process rule: File exists');
  });

  test('is one line, however much the tool says', () => {
    const error = failure('nft', `warning\nError: ${'x'.repeat(1e6)}`, 'timeout');
    assert.ok(error.message.length < 400);
    assert.match(error.message, /\(timeout\)$/);
    assert.equal(failure('nft', '', 'signal SIGABRT').message, 'nft failed: signal SIGABRT');
    assert.equal(failure('nft', '').message, 'nft failed: exit code 1');
  });
});

describe('parseToolVersion()', () => {
  const fits = {
    '1.0.5': 'too-old',
    '0.9.8': 'too-old',
    '1.0.6': 'known',
    '1.0.9': 'known',
    '1.1.3': 'known',
    '1.2.0': 'newer',
    '2.0': 'newer',
  };
  for (const [version, fit] of Object.entries(fits)) {
    test(`knows ${version} as ${fit}`, () => {
      const text = `nftables v${version} (Lester Gooch #5)`;
      assert.deepEqual(parseToolVersion(`${text}\n`), { text, fit });
    });
  }

  test('is undefined for anything else', () => {
    assert.equal(parseToolVersion('iptables v1.8.9'), undefined);
  });
});

describe('usableTool()', () => {
  const tools = (version: string): Tools => ({
    run: () => Promise.resolve({ exitCode: 0, stdout: `nftables v${version} (X)\n`, stderr: '' }),
    follow: () => () => undefined,
  });

  test('refuses an old one, and notes a new one', async () => {
    await assert.rejects(usableTool(tools('1.0.2')), {
      code: 'LB_KERNEL_UNSUPPORTED',
      message: /1\.0\.2 .* must be 1\.0\.6 or newer/,
    });
    assert.equal(await usableTool(tools('1.0.6')), 'nftables v1.0.6 (X)');
    assert.match(await usableTool(tools('1.2.1')), /newer than haports was tried with/);
  });
});
