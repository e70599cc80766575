import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { hasCommand, runCommand } from '../../support/commands.js';

const UNIT = 'deploy/systemd/haports.service';
/** Of `systemd-analyze security`, 0 (best) to 10. Network and notifications cost what they cost. */
const EXPOSURE_LIMIT = 2.0;

const text = await readFile(UNIT, 'utf8');
const settings = readUnit(text);

/** The values of each key, in order. Throws on lines that are neither section, comment nor setting. */
function readUnit(unit: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const line of unit.split('\n')) {
    if (line === '' || line.startsWith('#') || /^\[(Unit|Service|Install)\]$/.test(line)) continue;
    const [, key = '', value = ''] = /^([A-Z][A-Za-z]+)=(\S.*)$/.exec(line) ?? [];
    assert.notEqual(key, '', `a setting: ${line}`);
    found.set(key, [...(found.get(key) ?? []), value]);
  }
  return found;
}

function setting(key: string): string {
  return settings.get(key)?.join(' ') ?? '';
}

describe(UNIT, () => {
  test('waits for the process to say that it is ready, through its child', () => {
    assert.equal(setting('Type'), 'notify');
    assert.equal(setting('NotifyAccess'), 'all');
    assert.match(setting('WatchdogSec'), /^\d+$/);
  });

  test('starts what the build makes', async () => {
    const [node, script, ...rest] = setting('ExecStart').split(' ');
    assert.equal(node, '/usr/bin/node');
    assert.equal(script?.replace('/opt/haports/', ''), 'dist/main.js');
    assert.deepEqual(rest, ['run', '-c', '/etc/haports/config.json']);
    const { bin } = JSON.parse(await readFile('package.json', 'utf8')) as { bin: { haports: string } };
    assert.equal(bin.haports, 'dist/main.js');
  });

  test('reloads and stops by signals to the control process', () => {
    assert.equal(setting('ExecReload'), '/bin/kill -HUP $MAINPID');
    assert.equal(setting('KillMode'), 'mixed');
    assert.equal(setting('RestartPreventExitStatus'), '2');
  });

  test('gives flows longer than shutdown.deadline to finish', async () => {
    const schema = JSON.parse(await readFile('config.schema.json', 'utf8')) as {
      properties: { shutdown: { properties: { deadline: { default: string } } } };
    };
    const [, seconds] = /^(\d+)s$/.exec(schema.properties.shutdown.properties.deadline.default) ?? [];
    assert.ok(Number(setting('TimeoutStopSec')) > Number(seconds));
  });

  test('allows descriptors for all ports of a frontend, and flows on top', () => {
    assert.ok(Number(setting('LimitNOFILE')) > 4 * 65_535);
  });

  test('has no privilege but ports below 1024', () => {
    assert.equal(setting('CapabilityBoundingSet'), 'CAP_NET_BIND_SERVICE');
    assert.equal(setting('AmbientCapabilities'), 'CAP_NET_BIND_SERVICE');
    for (const key of ['NoNewPrivileges', 'ProtectHome', 'PrivateTmp', 'RestrictNamespaces']) {
      assert.equal(setting(key), 'yes', key);
    }
    assert.equal(setting('ProtectSystem'), 'strict');
    assert.equal(setting('RestrictAddressFamilies'), 'AF_INET AF_INET6 AF_UNIX AF_NETLINK');
    assert.match(setting('SystemCallFilter'), /^@system-service ~/);
  });

  test('runs as a user that its sysusers file makes', async () => {
    const sysusers = await readFile('deploy/systemd/haports.sysusers.conf', 'utf8');
    const [, user, home] = /^u (\S+) - "[^"]+" (\S+)$/m.exec(sysusers) ?? [];
    assert.deepEqual([setting('User'), setting('Group')], [user, user]);
    assert.equal(setting('WorkingDirectory'), home);
  });

  test('lets V8 write and execute memory, and says why', () => {
    assert.equal(setting('MemoryDenyWriteExecute'), 'no');
    assert.match(text, /# Must stay `no`: V8 .*\n(#.*\n)*MemoryDenyWriteExecute=no/);
  });

  test('systemd-analyze: is understood, and exposes little', async (t) => {
    if (!(await hasCommand('systemd-analyze'))) {
      t.skip('systemd-analyze is not installed');
      return;
    }
    const folder = await mkdtemp(join(tmpdir(), 'haports-unit-'));
    const copy = join(folder, 'haports.service');
    try {
      // It looks whether the program is there.
      await writeFile(copy, text.replace('/usr/bin/node', process.execPath));
      const verified = await runCommand('systemd-analyze', ['verify', '--man=no', copy], {
        timeoutMs: 30_000,
      });
      const aboutIt = verified.stderr.split('\n').filter((line) => line.includes('haports.service'));
      assert.deepEqual([verified.code, aboutIt], [0, []]);
      const security = await runCommand('systemd-analyze', ['security', '--offline=yes', copy], {
        timeoutMs: 30_000,
      });
      const exposure = /exposure level for haports\.service: ([\d.]+)/.exec(security.stdout)?.[1];
      t.diagnostic(`exposure level ${exposure ?? security.stderr}`);
      assert.ok(exposure !== undefined && Number(exposure) <= EXPOSURE_LIMIT, exposure);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
