import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { systemTools, type Follower, type Tool } from '../../../../src/planes/netfilter/tools.js';
import { builtFile, hasCommand, runCommand } from '../../../support/commands.js';
import { eventually, within } from '../../../support/deadline.js';

/** Stand-ins for the kernel's tools, found first in PATH. */
const SCRIPTS = {
  nft: `case "$1" in
echo) cat; echo "complaint $LC_ALL" >&2; exit 3;;
deaf) exec <&-; exit 1;;
hang) exec sleep 60;;
flood) exec yes 0123456789012345678901234567890123456789012345678901234567890123456789;;
esac`,
  conntrack: `echo $$ > "$1/pid"
printf 'one\\ntwo\\nhal'
echo 'WARNING: lost' >&2
case "$2" in end) printf 'f\\n'; exit 7;; esac
exec sleep 60`,
};

describe('systemTools()', () => {
  let folder: string;
  const path = process.env['PATH'];
  const tools = systemTools();

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-tools-'));
    for (const [name, script] of Object.entries(SCRIPTS)) {
      await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
      await chmod(join(folder, name), 0o755);
    }
    process.env['PATH'] = `${folder}:${path}`;
  });
  after(async () => {
    process.env['PATH'] = path;
    await rm(folder, { recursive: true });
  });

  function follower(): Follower & {
    readonly lines: string[];
    readonly complaints: string[];
    readonly end: Promise<string>;
  } {
    const lines: string[] = [];
    const complaints: string[] = [];
    let onEnd: (evidence: string) => void = () => undefined;
    const end = new Promise<string>((resolve) => (onEnd = resolve));
    return {
      lines,
      complaints,
      end,
      onLines: (batch) => lines.push(...batch),
      onComplaint: (line) => complaints.push(line),
      onEnd,
    };
  }

  /** Follows a tool to its end. */
  async function followed(tool: Tool, args: readonly string[]) {
    const seen = follower();
    tools.follow(tool, args, seen);
    return { ...seen, evidence: await within(seen.end, 5000, 'the end') };
  }

  async function inPath<T>(bin: string, act: () => Promise<T>): Promise<T> {
    process.env['PATH'] = bin;
    try {
      return await act();
    } finally {
      process.env['PATH'] = `${folder}:${path}`;
    }
  }

  async function followedPid(): Promise<number> {
    return eventually(
      async () => Number(await readFile(join(folder, 'pid'), 'utf8')) || undefined,
      5000,
      'a pid',
    );
  }

  function isAlive(pid: number): boolean {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  }

  test('run() gives input, and tells output, complaints and exit code in plain English', async () => {
    const input = `${'x'.repeat(300_000)}\n`;
    assert.deepEqual(await tools.run('nft', ['echo'], { input }), {
      exitCode: 3,
      stdout: input,
      stderr: 'complaint C\n',
    });
  });

  test('run() tells of a tool that does not read its input', async () => {
    const outcome = await tools.run('nft', ['deaf'], { input: 'x'.repeat(1_000_000) });
    assert.equal(outcome.exitCode, 1);
  });

  test('run() tells ENOENT where the tool is not installed', async () => {
    const outcome = await inPath('/nonexistent', () => tools.run('sysctl', []));
    assert.deepEqual(outcome, { exitCode: undefined, stdout: '', stderr: '', failure: 'ENOENT' });
  });

  test('run() ends a tool that takes too long', async () => {
    const outcome = await within(tools.run('nft', ['hang'], { timeoutMs: 100 }), 5000, 'the end');
    assert.deepEqual([outcome.exitCode, outcome.failure], [undefined, 'timeout']);
  });

  test('run() ends a tool that writes without end', async () => {
    const outcome = await within(tools.run('nft', ['flood']), 10_000, 'the end');
    assert.match(outcome.failure ?? '', /bytes of output/);
    assert.ok(outcome.stdout.length <= 64 * 1024 * 1024);
  });

  test('follow() gives whole lines and complaints, and tells how the tool ended', async () => {
    const { evidence, lines, complaints } = await followed('conntrack', [folder, 'end']);
    assert.equal(evidence, 'exit code 7');
    assert.deepEqual(lines, ['one', 'two', 'half']);
    assert.deepEqual(complaints, ['WARNING: lost']);
  });

  for (const wrapped of [true, false]) {
    test(`follow() tells ENOENT where the tool is not installed${wrapped ? '' : ', nor setpriv'}`, async (t) => {
      const bin = join(folder, wrapped ? 'with' : 'without');
      await mkdir(bin);
      if (wrapped) {
        const found = await runCommand('sh', ['-c', 'command -v setpriv']);
        if (found.code !== 0) {
          t.skip('not installed: setpriv');
          return;
        }
        await symlink(found.stdout.trim(), join(bin, 'setpriv'));
      }
      const { evidence, complaints } = await inPath(bin, () => followed('sysctl', []));
      assert.deepEqual([evidence, complaints], ['ENOENT', []]);
    });
  }

  test('follow() runs a tool where setpriv is not installed', async () => {
    const bin = join(folder, 'plain');
    await mkdir(bin);
    await symlink(join(folder, 'conntrack'), join(bin, 'conntrack'));
    const { evidence, lines } = await inPath(bin, () => followed('conntrack', [folder, 'end']));
    assert.deepEqual([evidence, lines], ['exit code 7', ['one', 'two', 'half']]);
  });

  test('follow() ends the tool when told to stop, and says no more', async () => {
    await rm(join(folder, 'pid'), { force: true });
    const seen = follower();
    const stop = tools.follow('conntrack', [folder, 'stay'], seen);
    await eventually(() => seen.lines.length === 2, 5000, 'two lines');
    const pid = await followedPid();
    stop();
    await eventually(() => !isAlive(pid), 5000, 'the tool to end');
    const told = await Promise.race([seen.end, new Promise((resolve) => setTimeout(resolve, 50, 'nothing'))]);
    assert.equal(told, 'nothing');
  });

  test('what follow() started ends when this process is killed', async (t) => {
    if (!(await hasCommand('setpriv'))) {
      t.skip('not installed: setpriv');
      return;
    }
    await rm(join(folder, 'pid'), { force: true });
    const runner = pathToFileURL(builtFile('src/planes/netfilter/tools')).href;
    const script = `import { systemTools } from '${runner}';
      systemTools().follow('conntrack', ['${folder}', 'stay'], { onLines() {}, onComplaint() {}, onEnd() {} });
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
    const pid = await followedPid();
    assert.ok(isAlive(pid));
    parent.kill('SIGKILL');
    await eventually(() => !isAlive(pid), 5000, 'the tool to end');
  });
});
