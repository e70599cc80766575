import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { toolFailure, type Tool } from '../../src/planes/netfilter/tools.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';

const NOBODY = ['--reuid', '65534', '--regid', '65534', '--clear-groups'];
const ABLE = ['--inh-caps', '+net_admin', '--ambient-caps', '+net_admin'];

const COMMANDS: readonly (readonly [Tool, ...string[]])[] = [
  ['nft', 'list', 'ruleset'],
  ['nft', '-c', '-f', '-'],
  ['ip', 'route', 'add', 'local', '240.7.0.0/16', 'dev', 'lo'],
  ['ip', 'rule', 'add', 'pref', '680', 'lookup', '70000'],
  ['conntrack', '-L'],
];

describe('A process that is not root', { skip: whyNoNamespaces() }, () => {
  const { box } = useLab({ box: {} }).hosts;

  for (const [tool, ...args] of COMMANDS) {
    test(`gets one clear line from ${tool} ${args[0]} without CAP_NET_ADMIN, and can do it with`, async () => {
      const run = async (caps: readonly string[]) => {
        const command = ['setpriv', ...NOBODY, ...caps, tool, ...args];
        const { code, stdout, stderr } = await box.run(command, { input: 'table inet haports\n' });
        return { exitCode: code ?? undefined, stdout, stderr };
      };
      const denied = await run([]);
      assert.notEqual(denied.exitCode, 0);
      const error = toolFailure(tool, denied);
      assert.equal(error.code, 'LB_KERNEL_DENIED', error.message);
      assert.match(error.message, /CAP_NET_ADMIN.*AmbientCapabilities=CAP_NET_ADMIN/);
      assert.doesNotMatch(error.message, /\n/);
      const able = await run(ABLE);
      assert.equal(able.exitCode, 0, able.stderr);
    });
  }
});
