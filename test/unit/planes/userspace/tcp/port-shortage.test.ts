import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { builtFile } from '../../../../support/commands.js';

const FIRST = 40_000;
const LAST = 40_010;

/** In a network namespace of its own, with loopback up and FIRST-LAST as ephemeral ports. */
function inNamespace(command: string, ...argv: readonly string[]): ReturnType<typeof spawnSync> {
  const range = `ip link set lo up && echo ${FIRST} ${LAST} > /proc/sys/net/ipv4/ip_local_port_range`;
  return spawnSync('unshare', ['-rn', 'sh', '-c', `${range} && exec "$@"`, 'sh', command, ...argv], {
    encoding: 'utf8',
    timeout: 20_000,
  });
}

test('a TCP flow gets a port of haports’ choice when the kernel finds none', (t) => {
  const possible = inNamespace('true');
  if (possible.status !== 0) {
    t.skip(`no network namespace: ${String(possible.error ?? possible.stderr)}`);
    return;
  }
  const script = builtFile('test/unit/planes/userspace/tcp/port-shortage-child');
  const { stdout, stderr } = inNamespace(process.execPath, script, String(FIRST), String(LAST));
  assert.equal(String(stdout).trim(), 'no port; hello 127.0.0.1 {}', String(stderr));
});
