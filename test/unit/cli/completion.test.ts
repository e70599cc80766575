import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { aBackendView, aPool } from '../../support/api-answers.js';
import { hasCommand, runCommand } from '../../support/commands.js';
import { FakeAdmin } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';

let admin: FakeAdmin;
let folder: string;

before(async () => {
  admin = await new FakeAdmin().start();
  folder = await mkdtemp(join(tmpdir(), 'haports-completion-'));
});

after(async () => {
  await admin.stop();
  await rm(folder, { recursive: true });
});

beforeEach(() => {
  const lone = { ...aBackendView('lone', '::1'), pool: 'others' };
  admin.answers.set('GET /v1/pools', { json: [aPool(), aPool({ name: 'others', backends: [lone] })] });
});

/** What is offered at the end of a command line, with the descriptions. */
async function offered(line: string): Promise<readonly string[]> {
  const deps = new FakeDeps();
  deps.env['HAPORTS_SOCKET'] = './nobody-there.sock';
  const [, ...words] = line.replace('SOCKET', admin.socket).split(' ');
  assert.equal(await deps.run('__complete', '--', ...words), 0);
  assert.equal(deps.stderr, '');
  return deps.stdout.split('\n').filter((one) => one !== '');
}

/** The words alone. */
async function complete(line: string): Promise<readonly string[]> {
  return (await offered(line)).map((one) => one.replace(/\t.*/, ''));
}

async function script(shell: string): Promise<string> {
  const deps = new FakeDeps();
  assert.equal(await deps.run('completion', shell), 0);
  assert.equal(deps.stderr, '');
  return deps.stdout;
}

describe('haports __complete', () => {
  const CASES: readonly (readonly [line: string, words: readonly string[]])[] = [
    ['haports dr', ['drain']],
    ['haports flows --re', ['--reason']],
    ['haports flows --reason ', ['hash', 'retry', 'rebalanced', 'fail-open', 'pinned']],
    ['haports drain --then r', ['reset']],
    ['haports drain --deadline 5m --th', ['--then']],
    ['haports kernel ', ['ruleset', 'flush']],
    ['haports completion f', ['fish']],
    ['haports reload -c conf', [':files']],
    ['haports plan conf', [':files']],
    ['haports replay ', [':files']],
    ['haports help comp', ['completion']],
    ['haports nosuch x', []],
    ['haports flows --rule ', []],
    // Which process is meant is in the line.
    [
      'haports drain --socket SOCKET --deadline 5m ',
      ['nvas/nva-1', 'nvas/nva-2', 'nvas/nva-3', 'others/lone'],
    ],
    ['haports weight --socket SOCKET nvas/nva-2', ['nvas/nva-2']],
    ['haports explain --socket SOCKET --down o', ['others/lone']],
    ['haports simulate --socket SOCKET --weight o', ['others/lone']],
    ['haports backends --socket SOCKET ', ['nvas', 'others']],
    ['haports weight --socket SOCKET nvas/nva-2 ', []],
    // No process answers there.
    ['haports drain ', []],
  ];

  for (const [line, words] of CASES) {
    test(`completes "${line}"`, async () => assert.deepEqual(await complete(line), words));
  }

  test('completes commands, each once and with what it does', async () => {
    const commands = await complete('haports ');
    assert.ok(commands.includes('admin-state') && !commands.includes('__complete'));
    assert.equal(new Set(commands).size, commands.length);
    assert.deepEqual(await offered('haports admin'), [
      "admin-state\tset the operator's switch on a backend, over its probe",
    ]);
  });

  test('offers nothing where what answers is nonsense, or more than a word', async () => {
    admin.answers.set('GET /v1/pools', { text: '<html>' });
    assert.deepEqual(await complete('haports drain --socket SOCKET '), []);
    const evil = aBackendView('$(touch evil)', '::1');
    admin.answers.set('GET /v1/pools', { json: [aPool({ backends: [evil] })] });
    assert.deepEqual(await complete('haports drain --socket SOCKET '), []);
  });
});

/** A command line in a shell, and what it says the line may end with. */
type Driver = (line: string) => string;

const DRIVERS: Readonly<Record<string, Driver>> = {
  bash: (line) => `
source completion.bash
COMP_WORDS=(${words(line)})
COMP_CWORD=${line.split(' ').length - 1}
_haports
printf '%s\\n' "\${COMPREPLY[@]}"`,
  zsh: (line) => `
compdef() { : }
_files() { print -l conf*(N) }
_describe() { print -l "\${(@)offers%%:*}" }
source completion.zsh
words=(${words(line)})
CURRENT=${line.split(' ').length}
_haports || true`,
  fish: (line) => `
source completion.fish
complete --do-complete '${line}' | string replace -r '\\t.*' ''
true`,
};

function words(line: string): string {
  return line
    .split(' ')
    .map((word) => `'${word}'`)
    .join(' ');
}

for (const [shell, driver] of Object.entries(DRIVERS)) {
  describe(`haports completion ${shell}`, async () => {
    const skip = (await hasCommand(shell)) ? false : `${shell} is not there`;

    /** What the shell offers where haports answers with these lines; `asked` are the words that it was asked with. */
    async function complete(line: string, answer: string) {
      const program = join(folder, 'haports');
      await writeFile(program, `#!/bin/sh\nprintf '%s|' "$@" > asked\nprintf '${answer}'\n`);
      await chmod(program, 0o755);
      await writeFile(join(folder, `completion.${shell}`), await script(shell));
      await writeFile(join(folder, 'conf a.json'), '');
      const setup = shell === 'fish' ? 'set -x PATH $PWD $PATH' : 'PATH="$PWD:$PATH"';
      const { code, stdout, stderr } = await runCommand(shell, [
        '-c',
        `cd '${folder}'\n${setup}\n${driver(line)}`,
      ]);
      assert.deepEqual([code, stderr], [0, ''], line);
      const { stdout: asked } = await runCommand('cat', [join(folder, 'asked')]);
      return { offers: stdout.split('\n').filter((word) => word !== ''), asked };
    }

    test('is sound', { skip }, async () => {
      const file = join(folder, `sound.${shell}`);
      await writeFile(file, await script(shell));
      const { code, stderr } = await runCommand(shell, ['-n', file]);
      assert.deepEqual([code, stderr], [0, '']);
    });

    test('asks haports with the words before the cursor, and offers what it answers', { skip }, async () => {
      const { offers, asked } = await complete('haports drain nvas/', 'nvas/nva-1\\nnvas/nva-2\\tsecond\\n');
      assert.deepEqual(offers, ['nvas/nva-1', 'nvas/nva-2']);
      assert.equal(asked, '__complete|--|drain|nvas/|');
      assert.equal((await complete('haports drain ', 'x\\n')).asked, '__complete|--|drain||');
    });

    test('offers files where haports says so, and nothing where it has no answer', { skip }, async () => {
      const { offers } = await complete('haports plan conf', ':files\\n');
      assert.deepEqual(offers, ['conf a.json']);
      assert.deepEqual((await complete('haports drain x', '')).offers, []);
    });

    test('runs nothing that it is offered', { skip }, async () => {
      const { offers } = await complete('haports drain ', '$(touch evil)\\n');
      assert.equal(offers.length, 1);
      const { stdout } = await runCommand('ls', [folder]);
      assert.doesNotMatch(stdout, /evil/);
    });
  });
}

test('haports completion of another shell is exit code 2', async () => {
  const deps = new FakeDeps();
  assert.equal(await deps.run('completion', 'tcsh'), 2);
  assert.match(deps.stderr, /LB_USAGE: .*"tcsh": it must be bash, zsh or fish/);
});
