import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../support/commands.js';
import { NamespaceLab, whyNoNamespaces } from '../support/namespaces.js';

const SUITE = fileURLToPath(new URL('./kernel-suite-main.js', import.meta.url));

describe('the kernel plane, in a namespace of its own', { skip: whyNoNamespaces() }, () => {
  let lab: NamespaceLab;

  before(async () => {
    lab = await NamespaceLab.create('all');
    await lab.sysctl('all', 'net.netfilter.nf_conntrack_acct', 1);
  });
  after(() => lab.close());

  test('passes the conformance suite', { timeout: 240_000 }, async (t) => {
    const [program = '', ...prefix] = lab.prefix('all');
    // Within a test, Node runs no other tests.
    const node = ['env', '-u', 'NODE_TEST_CONTEXT', process.execPath];
    // A failed test may leave connections open, which would keep the process.
    const args = [...prefix, ...node, '--test-reporter=spec', '--test-force-exit', SUITE];
    const { code, stdout, stderr } = await runCommand(program, args, { timeoutMs: 230_000 });
    for (const line of stdout.split('\n')) if (/✔|ℹ [a-z]|﹣/.test(line)) t.diagnostic(line.trim());
    if (code !== 0) throw new Error(`${stdout}\n${stderr}`);
    assert.ok(Number(/^ℹ pass (\d+)/m.exec(stdout)?.[1]) >= 10, stdout);
  });
});
