import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hasCommand, runCommand } from '../../support/commands.js';
import { aBackendView, aPool } from '../../support/api-answers.js';
import { FakeDeps } from './fake-deps.js';

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'haports-completion-'));
});

after(() => rm(folder, { recursive: true }));

async function script(shell: string): Promise<string> {
  const deps = new FakeDeps();
  assert.equal(await deps.run('completion', shell), 0);
  assert.equal(deps.stderr, '');
  return deps.stdout;
}

describe('haports completion bash', async () => {
  const skip = (await hasCommand('bash')) ? false : 'bash is not there';

  /** What bash offers at the end of the line, with a haports of the test's own. */
  async function complete(line: string, haports = 'exit 1'): Promise<readonly string[]> {
    const program = join(folder, 'haports');
    await writeFile(program, `#!/bin/sh\n${haports}\n`);
    await chmod(program, 0o755);
    await writeFile(join(folder, 'completion.bash'), await script('bash'));
    const words = line.split(' ');
    const driver = [
      'source completion.bash',
      `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')})`,
      `COMP_CWORD=${words.length - 1}`,
      '_haports',
      'printf "%s\\n" "${COMPREPLY[@]}"',
    ];
    const { code, stdout, stderr } = await runCommand('bash', [
      '-c',
      `cd '${folder}' && PATH="$PWD:$PATH" && ${driver.join('\n')}`,
    ]);
    assert.deepEqual([code, stderr], [0, ''], line);
    return stdout.split('\n').filter((word) => word !== '');
  }

  test('is sound bash', { skip }, async () => {
    const { code, stderr } = await runCommand('bash', ['-n'], { input: await script('bash') });
    assert.deepEqual([code, stderr], [0, '']);
  });

  test('completes commands, options, choices and files', { skip }, async () => {
    assert.deepEqual(await complete('haports dr'), ['drain']);
    assert.ok((await complete('haports ')).includes('admin-state'));
    assert.equal(new Set(await complete('haports ')).size, (await complete('haports ')).length, 'none twice');
    assert.deepEqual(await complete('haports flows --re'), ['--reason']);
    assert.deepEqual(await complete('haports flows --reason '), [
      ...['hash', 'retry', 'rebalanced', 'fail-open', 'pinned'],
    ]);
    assert.deepEqual(await complete('haports drain --then r'), ['reset']);
    await writeFile(join(folder, 'conf a.json'), '');
    assert.deepEqual(await complete('haports reload -c conf'), ['conf a.json']);
    assert.deepEqual(await complete('haports plan conf'), ['conf a.json']);
    assert.deepEqual(await complete('haports help comp'), ['completion']);
    assert.deepEqual(await complete('haports nosuch x'), []);
  });

  test('completes backends and pools of the process that the line means', { skip }, async () => {
    const pools = [
      aPool(),
      aPool({ name: 'others', backends: [{ ...aBackendView('lone', '::1'), pool: 'others' }] }),
    ];
    const haports = `echo "$@" > '${folder}/asked'\ncat <<'END'\n${JSON.stringify(pools, undefined, 2)}\nEND`;
    const line = 'haports drain --socket /run/x.sock --deadline 5m ';
    assert.deepEqual(await complete(line, haports), [
      'nvas/nva-1',
      'nvas/nva-2',
      'nvas/nva-3',
      'others/lone',
    ]);
    const { stdout } = await runCommand('cat', [join(folder, 'asked')]);
    assert.equal(stdout, 'backends --json --socket /run/x.sock\n');
    assert.deepEqual(await complete('haports weight nvas/nva-2', haports), ['nvas/nva-2']);
    assert.deepEqual(await complete('haports explain --down o', haports), ['others/lone']);
    assert.deepEqual((await complete('haports backends ', haports)).toSorted(), ['nvas', 'others']);
    assert.deepEqual(await complete('haports weight nvas/nva-2 ', haports), [], 'a weight is nobody');
  });

  test(
    'offers nothing, and says nothing, where no process answers or answers nonsense',
    { skip },
    async () => {
      assert.deepEqual(await complete('haports drain ', 'echo "no process" >&2; exit 1'), []);
      assert.deepEqual(await complete('haports drain ', 'echo "<html>"'), []);
      const evil = JSON.stringify([{ id: 'a/b', name: '$(touch evil)', pool: 'a' }], undefined, 2);
      assert.deepEqual(await complete('haports drain ', `cat <<'END'\n${evil}\nEND`), []);
    },
  );
});

describe('haports completion zsh', async () => {
  const skip = (await hasCommand('zsh')) ? false : 'zsh is not there';

  test('is sound zsh', { skip }, async () => {
    const { code, stderr } = await runCommand('zsh', ['-n'], { input: await script('zsh') });
    assert.deepEqual([code, stderr], [0, '']);
  });

  test('knows every command and option', async () => {
    const text = await script('zsh');
    assert.match(text, /^#compdef haports$/m);
    assert.match(text, /'admin-state:set the operator'\\''s switch on a backend, over its probe'/);
    assert.match(text, /'\*--then\[.*\]: :\(reset leave\)'/);
    assert.match(text, /drain\) _arguments(?: \\\n.*)* '1: :_haports_backend'/);
  });
});

test('haports completion of another shell is exit code 2', async () => {
  const deps = new FakeDeps();
  assert.equal(await deps.run('completion', 'fish'), 2);
  assert.match(deps.stderr, /"fish": it must be bash or zsh/);
});
