import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ExitCode } from '../../../src/cli/deps.js';
import { BalancerError, type ErrorSource } from '../../../src/model/errors.js';
import { VERSION } from '../../../src/model/version.js';
import { example, haExample } from '../../support/example.js';
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

describe('haports check', () => {
  const RISKY = haExample({ compat: 'none', pool: { backends: ['10.0.1.1'] } });
  const BROKEN = example({ rule: { frontend: 'hubb', idletimeout: 1 } });

  test('check of a sound configuration says so and exits with 0', async () => {
    const deps = FakeDeps.with(example());
    assert.equal(await deps.run('check'), 0);
    assert.equal(deps.stdout, 'config.json can be used: no findings\n');
    assert.equal(deps.stderr, '');
    assert.deepEqual(deps.started, []);
  });

  test('check tells warnings and notes and still exits with 0', async () => {
    const deps = FakeDeps.with(RISKY);
    assert.equal(await deps.run('check'), 0);
    const lines = deps.stdout.trimEnd().split('\n');
    assert.ok(lines.length >= 2, deps.stdout);
    for (const line of lines.slice(0, -1)) assert.match(line, /^config\.json:\d+:\d+: (warning|note) \w+/);
    assert.match(lines.at(-1) ?? '', /^config\.json can be used: \d+ (warning|note)/);
  });

  test('check tells all errors, one a line, and exits with 2', async () => {
    const deps = FakeDeps.with(BROKEN);
    assert.equal(await deps.run('check'), 2);
    const lines = deps.stdout.trimEnd().split('\n');
    assert.equal(lines.filter((line) => line.includes(': error LB_')).length, 2, deps.stdout);
    assert.match(deps.stdout, /hubb/);
    assert.match(deps.stdout, /idleTimeout/, 'the key that was meant');
    assert.match(lines.at(-1) ?? '', /^config\.json cannot be used: 2 errors/);
  });

  test('check --json prints the findings and nothing else', async () => {
    for (const [raw, ok, code] of [
      [example(), true, 0],
      [BROKEN, false, 2],
      ['{ "frontends": [', false, 2],
    ] as const) {
      const deps = FakeDeps.with(raw);
      assert.equal(await deps.run('check', '--json'), code);
      const printed = JSON.parse(deps.stdout) as { ok: boolean; findings: { code: string }[] };
      assert.equal(printed.ok, ok);
      assert.equal(printed.findings.length > 0, !ok);
      for (const finding of printed.findings) assert.match(finding.code, /^LB_/);
      assert.equal(deps.stderr, '');
    }
  });

  test('check reads the file that -c names, and names it', async () => {
    for (const flag of ['-c', '--config']) {
      const deps = new FakeDeps();
      deps.files.set('other.json', example());
      assert.equal(await deps.run('check', flag, 'other.json'), 0);
      assert.deepEqual(deps.loaded, ['other.json']);
      assert.match(deps.stdout, /^other\.json can be used/);
    }
  });
});

describe('haports explain', () => {
  const FLOW = ['tcp', '192.0.2.7:40000', '10.0.0.1:443'] as const;

  test('explain names the backend and how it came to it, and starts nothing', async () => {
    const deps = FakeDeps.with(example());
    assert.equal(await deps.run('explain', ...FLOW), 0);
    const text = folded(deps.stdout);
    assert.match(text, /10\.0\.1\.[12]:6443/);
    assert.match(text, /web/);
    assert.match(text, /Every probe is assumed up/);
    assert.deepEqual([deps.stderr, deps.started], ['', []]);
  });

  test('explain --json prints the same as JSON, and nothing else', async () => {
    const deps = FakeDeps.with(example());
    assert.equal(await deps.run('explain', '--json', ...FLOW), 0);
    const printed: unknown = JSON.parse(deps.stdout);
    assert.ok(typeof printed === 'object' && printed !== null);
    const text = FakeDeps.with(example());
    await text.run('explain', ...FLOW);
    const chosen = /10\.0\.1\.[12]/.exec(text.stdout)?.[0] ?? 'none';
    assert.ok(deps.stdout.includes(chosen));
  });

  test('explain --down takes backends for down, by pool/name or id, more than one', async () => {
    const down = (...names: string[]) => names.flatMap((name) => ['--down', name]);
    const first = FakeDeps.with(example());
    await first.run('explain', ...FLOW, ...down('nvas/10.0.1.1'));
    assert.match(folded(first.stdout), /10\.0\.1\.2:6443/);
    assert.match(folded(first.stdout), /Every other probe is assumed up/);
    const second = FakeDeps.with(
      example({ pool: { backends: ['10.0.1.1', { name: 'two', address: '10.0.1.2' }] } }),
    );
    await second.run('explain', ...FLOW, ...down('nvas/two'));
    assert.match(folded(second.stdout), /10\.0\.1\.1:6443/);
    const both = FakeDeps.with(example());
    assert.equal(await both.run('explain', '--json', ...FLOW, ...down('nvas/10.0.1.1', 'nvas/10.0.1.2')), 0);
    assert.doesNotMatch(both.stdout, /10\.0\.1\.[12]:6443/);
  });

  const WRONG: readonly (readonly [readonly string[], RegExp])[] = [
    [['icmp', FLOW[1], FLOW[2]], /"icmp".*must be tcp or udp/],
    [['tcp', '192.0.2.7', FLOW[2]], /source "192\.0\.2\.7".*must be address:port/],
    [['tcp', FLOW[1], '10.0.0.1:70000'], /destination "10\.0\.0\.1:70000"/],
    [['tcp', FLOW[1], '10.0.0.1:0'], /destination "10\.0\.0\.1:0"/],
    [['tcp', 'example.org:1', FLOW[2]], /source "example\.org:1"/],
    [['tcp', '::1:40000', FLOW[2]], /source "::1:40000"/],
    [['tcp', '[::1]:40000', FLOW[2]], /one address family/],
    [[...FLOW, '--down', 'nvas/nobody'], /"nvas\/nobody"/],
  ];

  for (const [args, expected] of WRONG) {
    test(`explain ${args.join(' ')} is one line and exit code 2`, async () => {
      const deps = FakeDeps.with(example());
      assert.equal(await deps.run('explain', ...args), 2);
      assert.match(deps.stderr, /^haports: LB_USAGE: [^\n]+\n$/);
      assert.match(deps.stderr, expected);
      assert.equal(deps.stdout, '');
    });
  }

  test('explain takes the protocol in any case', async () => {
    const deps = FakeDeps.with(example());
    assert.equal(await deps.run('explain', 'TCP', FLOW[1], FLOW[2]), 0);
  });

  test('explain of a configuration that cannot be used prints its errors alone, and exits with 2', async () => {
    const deps = FakeDeps.with(
      // A warning as well: a pool of one.
      haExample({ pool: { backends: ['10.0.1.1'] }, rule: { probe: 'nosuch' } }),
    );
    assert.equal(await deps.run('explain', ...FLOW), 2);
    const lines = deps.stderr.trimEnd().split('\n');
    assert.ok(lines.length >= 1);
    for (const line of lines) assert.match(line, /^config\.json:\d+:\d+: error LB_/);
    assert.equal(deps.stdout, '');
  });
});
