import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ExitCode } from '../../../src/cli/deps.js';
import { BalancerError, type ErrorSource } from '../../../src/model/errors.js';
import { VERSION } from '../../../src/model/version.js';
import { example } from '../../support/example.js';
import { FakeDeps } from './fake-deps.js';

const CONNECTION =
  '-c, --config <file> | --socket <path> | --http <url> | --token-file <file> | --ca <file> | --json';

/** Every command with all its options, and more words that its help must have, as the manual has it. */
const COMMANDS: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  `run: -c, --config <file> | --watch | SIGTERM | SIGINT | SIGHUP | shutdown.deadline
check: -c, --config <file> | --json
schema:
explain: LIVE | --down <pool/backend> | <protocol> <source> <destination> | tcp or udp | haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080
demo: -c, --config <file> | bundled.json
kernel: -c, --config <file> | --full | --instance <name> | ruleset | flush
status: LIVE
backends: LIVE | [pool]
flows: LIVE | --rule <name> | --backend <pool/backend> | --protocol <protocol> | --source <address> | --state <state> | --reason <reason> | --sort <key> | --limit <count>
top: LIVE | --sort <key> | --filter <text> | q quit
drain: LIVE | --deadline <duration> | --then <action> | --spread <duration> | --force | --watch | --show | --cancel | <pool/backend> | Ctrl-C ends --watch, not the drain
admin-state: LIVE | <pool/backend> <state> | none, up, down or configured
weight: LIVE | <pool/backend> <weight> | 0 to 256, or configured
reload: LIVE | --max-moved <share> | 3 more would move
upgrade: LIVE | --deadline <duration> | SIGUSR2
events: LIVE | -f, --follow | --since <id>
plan: LIVE | --against <file> | --max-moved <share> | <file> | 3 more would move
simulate: LIVE | --offline <file> | --down <pool/backend> | --up <pool/backend> | --drain <pool/backend> | --admin-state <pool/backend=state> | --weight <pool/backend=weight> | --live | --flow-log <file> | --last <count> | --flows <count> | --sources <count> | --seed <number>
replay: --json | <flow.log>
doctor: -c, --config <file> | --json | --port <number> | --no-paths
completion: <shell> | bash, zsh or fish | source <(haports completion bash)`
    .replaceAll('LIVE', CONNECTION)
    .split('\n')
    .map((line) => line.split(': '))
    .map(([name = '', words = '']) => [name.replace(':', ''), words.split(' | ').filter(Boolean)]),
);

/** Lines and runs of blanks folded: how wide the help is set does not matter. */
function folded(text: string): string {
  return text.replaceAll(/\s+/g, ' ');
}

describe('runCli() help', () => {
  test('--help names every command with what it does, and the exit codes', async () => {
    for (const args of [['--help'], ['-h'], ['help']]) {
      const deps = new FakeDeps();
      assert.equal(await deps.run(...args), 0);
      for (const command of Object.keys(COMMANDS)) {
        assert.match(deps.stdout, new RegExp(`^  ${command}\\b.*  \\S+ \\S+`, 'm'), command);
      }
      assert.match(
        folded(deps.stdout),
        /Exit codes: 0 fine, 1 failed, 2 bad configuration or usage, 3 gate exceeded/,
      );
      assert.equal(deps.stderr, '');
    }
  });

  for (const [command, words] of Object.entries(COMMANDS)) {
    test(`${command} --help names every option, and does nothing`, async () => {
      for (const args of [
        [command, '--help'],
        ['help', command],
      ]) {
        const deps = new FakeDeps();
        assert.equal(await deps.run(...args), 0);
        const text = folded(deps.stdout);
        for (const word of ['-h, --help', ...words]) assert.ok(text.includes(word), `${word} in:\n${text}`);
        // And the other way round: there is no option that this test does not know.
        const options = [...deps.stdout.matchAll(/^ {2}(-\S.*?)(?: {2}|$)/gm)].map(([, option]) => option);
        for (const option of options) assert.ok([...words, '-h, --help'].includes(option ?? ''), option);
        assert.deepEqual([deps.loaded, deps.started, deps.stderr], [[], [], '']);
      }
    });
  }

  test('help is set evenly and shows no default that only a program understands', async () => {
    const deps = new FakeDeps();
    await deps.run('--help');
    const [, description] = deps.stdout.split('\n\n');
    const lines = description?.split('\n') ?? [];
    // Folded once, by the width of the terminal: no short line but the last.
    for (const line of lines.slice(0, -1)) assert.ok(line.length > 60, deps.stdout);
    await deps.run('explain', '--help');
    assert.match(folded(deps.stdout), /may be given again\) \(default: none\)/);
  });

  test('--version prints the version of package.json', async () => {
    const text = await readFile(join(process.cwd(), 'package.json'), 'utf8');
    const { version } = JSON.parse(text) as { version: string };
    assert.equal(VERSION, version);
    for (const flag of ['--version', '-V']) {
      const deps = new FakeDeps();
      assert.equal(await deps.run(flag), 0);
      assert.equal(deps.stdout, `${version}\n`);
    }
  });
});

describe('runCli() usage errors', () => {
  const WRONG: readonly (readonly [readonly string[], RegExp])[] = [
    [['nosuch'], /unknown command 'nosuch'/],
    [['ceck'], /Did you mean check\?/],
    [['--nosuch'], /unknown option '--nosuch'/],
    [['run', '--nosuch'], /unknown option '--nosuch'/],
    [['check', '--jsn'], /Did you mean --json\?/],
    [['check', 'config.json'], /too many arguments/],
    [['schema', '-c', 'config.json'], /unknown option '-c'/],
    [['run', '-c'], /argument missing/],
    [['explain', 'tcp', '192.0.2.7:40000'], /missing required argument 'destination'/],
    [['explain', 'tcp', '192.0.2.7:40000', '10.0.0.1:443', 'more'], /too many arguments/],
    [['demo', 'now'], /too many arguments/],
    [['drain'], /missing required argument 'pool\/backend'/],
    [['drain', 'nvas/nva-1', '--deadline', '10'], /must be a whole number with a unit/],
    [['drain', 'nvas/nva-1', '--then', 'explode'], /Allowed choices are reset, leave/],
    [['flows', '--limit', '1001'], /1 to 1000/],
    [['flows', '--limit', 'many'], /1 to 1000/],
    [['flows', '--sort', 'size'], /Allowed choices are/],
    [['reload', '--max-moved', '2'], /as 2%/],
    [['reload', '--max-moved', '101%'], /at most 100%/],
    [['events', '--since', '-1'], /whole number/],
    [['status', '--socket', 'a', '--http', 'http://127.0.0.1:1'], /cannot be used with option '--socket/],
  ];

  for (const [args, expected] of WRONG) {
    test(`haports ${args.join(' ')} says what is wrong and exits with 2`, async () => {
      const deps = new FakeDeps();
      assert.equal(await deps.run(...args), 2);
      assert.match(deps.stderr, expected);
      assert.match(deps.stderr, /haports --help/, 'and where to look');
      assert.deepEqual([deps.stdout, deps.loaded, deps.started], ['', [], []]);
    });
  }

  test('haports alone shows the help, on stderr, and exits with 2', async () => {
    const deps = new FakeDeps();
    assert.equal(await deps.run(), 2);
    assert.match(deps.stderr, /Usage: haports/);
    assert.equal(deps.stdout, '');
  });
});

describe('runCli() failures', () => {
  const CODES: readonly (readonly [ErrorSource, ExitCode])[] = [
    ['config', 2],
    ['usage', 2],
    ['system', 1],
    ['upstream', 1],
    ['downstream', 1],
    ['internal', 1],
  ];

  for (const [source, code] of CODES) {
    test(`an error of source ${source} is one line and exit code ${code}`, async () => {
      const deps = FakeDeps.with(example());
      deps.onStart = () =>
        Promise.reject(new BalancerError('Cannot listen on "x"', { code: 'LB_LISTEN_FAILED', source }));
      assert.equal(await deps.run('run'), code);
      assert.equal(deps.stderr, 'haports: LB_LISTEN_FAILED: Cannot listen on "x"\n');
      assert.equal(deps.stdout, '');
    });
  }

  test('a bug exits with 1, its code and where it is', async () => {
    const deps = FakeDeps.with(example());
    deps.onStart = () => Promise.reject(new RangeError('Off by one'));
    assert.equal(await deps.run('run'), 1);
    assert.match(deps.stderr, /^haports: LB_INTERNAL: RangeError: Off by one\n {4}at /);
    const odd = FakeDeps.with(example());
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what other people's code may do
    odd.onStart = () => Promise.reject('just words');
    assert.equal(await odd.run('run'), 1);
    assert.equal(odd.stderr, 'haports: LB_INTERNAL: just words\n');
  });
});

describe('haports schema', () => {
  test('schema prints the JSON Schema that config.schema.json holds', async () => {
    const deps = new FakeDeps();
    assert.equal(await deps.run('schema'), 0);
    const file = await readFile(join(process.cwd(), 'config.schema.json'), 'utf8');
    assert.deepEqual(JSON.parse(deps.stdout), JSON.parse(file));
    assert.equal(deps.stdout.endsWith('}\n'), true);
    assert.equal(deps.stderr, '');
  });
});
