import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { builtFile } from '../support/commands.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';

const SUITE = builtFile('test/conformance/kernel-suite-main');

describe('the kernel plane, in a namespace of its own', { skip: whyNoNamespaces() }, () => {
  const { all } = useLab({ all: {} }).hosts;
  before(() => all.sysctl('net.netfilter.nf_conntrack_acct', 1));

  test('passes the conformance suite', { timeout: 240_000 }, async (t) => {
    // Within a test, Node runs no other tests.
    const node = ['env', '-u', 'NODE_TEST_CONTEXT', process.execPath];
    // A failed test may leave connections open, which would keep the process.
    const args = [...node, '--test-reporter=spec', '--test-force-exit', SUITE];
    const { code, stdout, stderr } = await all.run(args, { timeoutMs: 230_000 });
    for (const line of stdout.split('\n')) if (/✔|ℹ [a-z]|﹣/.test(line)) t.diagnostic(line.trim());
    if (code !== 0) throw new Error(`${stdout}\n${stderr}`);
    assert.ok(Number(/^ℹ pass (\d+)/m.exec(stdout)?.[1]) >= 10, stdout);
  });
});
