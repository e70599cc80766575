import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';

const repository = process.cwd();
const scratch = mkdtempSync(join(tmpdir(), 'haports-native-free-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

interface Outcome {
  readonly status: number | null;
  readonly lines: readonly string[];
}

function run(script: string, project: string): Outcome {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(repository, 'native-free', script), project],
    { encoding: 'utf8', timeout: 60_000 },
  );
  return { status, lines: `${stdout}${stderr}`.trim().split('\n') };
}

type Json = Readonly<Record<string, unknown>>;

function write(project: string, path: string, content: string | Uint8Array | Json): void {
  const target = join(project, path);
  mkdirSync(dirname(target), { recursive: true });
  const isText = typeof content === 'string' || content instanceof Uint8Array;
  writeFileSync(target, isText ? content : JSON.stringify(content));
}

interface Tree {
  readonly manifest?: Json;
  readonly locked?: Json;
  readonly allowed?: Json;
}

/** A project with one direct dependency "alpha" that needs "beta", and a development package full of native code. */
function plant(name: string, changes: Tree = {}): string {
  const project = join(scratch, name);
  const dependencies = { alpha: '1.0.0' };
  write(project, 'package.json', { name, dependencies, ...changes.manifest });
  write(project, 'package-lock.json', {
    packages: {
      '': { name, dependencies, devDependencies: { compiler: '1.0.0' } },
      'node_modules/alpha': { version: '1.0.0', dependencies: { beta: '^1.0.0' } },
      'node_modules/beta': { version: '1.0.0' },
      'node_modules/compiler': { version: '1.0.0', dev: true, hasInstallScript: true },
      ...changes.locked,
    },
  });
  write(project, 'native-free/allow-list.json', {
    packages: {
      alpha: { neededBy: ['haports'], why: 'first' },
      beta: { neededBy: ['alpha'], why: 'second' },
      ...changes.allowed,
    },
  });
  for (const dependency of ['alpha', 'beta', 'compiler']) {
    write(project, `node_modules/${dependency}/package.json`, { name: dependency, version: '1.0.0' });
    write(project, `node_modules/${dependency}/index.js`, 'export {};\n');
  }
  write(project, 'node_modules/compiler/build/compiler.node', 'x');
  return project;
}

function findingsOf(outcome: Outcome): readonly string[] {
  return outcome.lines.slice(0, -1).map((line) => line.replace(/^native-free: /, ''));
}

describe('native-free/check.mjs', () => {
  test('finds nothing in the real run-time tree', () => {
    const outcome = run('check.mjs', repository);
    assert.deepEqual(findingsOf(outcome), []);
    assert.equal(outcome.status, 0);
    assert.match(outcome.lines.at(-1) ?? '', /^native-free: \d+ run-time packages, \d+ files, 0 findings$/);
  });

  test('passes a clean tree and leaves development packages out', () => {
    const outcome = run('check.mjs', plant('clean'));
    assert.deepEqual(outcome, {
      status: 0,
      lines: ['native-free: 2 run-time packages, 4 files, 0 findings'],
    });
  });

  const elf = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0);
  const wasm = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
  const planted: readonly (readonly [string, string | Uint8Array | Json, RegExp])[] = [
    [
      'node_modules/beta/build/Release/beta.node',
      'x',
      /^node_modules\/beta\/build\/Release\/beta\.node: .*addon/,
    ],
    ['node_modules/alpha/binding.gyp', '{}', /^node_modules\/alpha\/binding\.gyp: .*compile/],
    ['node_modules/beta/prebuilds/linux-x64/readme', 'x', /^node_modules\/beta\/prebuilds: .*prebuilt/],
    ['node_modules/beta/lib/libbeta.so.1', 'x', /^node_modules\/beta\/lib\/libbeta\.so\.1: .*library/],
    ['node_modules/beta/data.txt', elf, /^node_modules\/beta\/data\.txt: holds machine code/],
    ['node_modules/beta/hash.wasm', wasm, /^node_modules\/beta\/hash\.wasm: is WebAssembly/],
    [
      'node_modules/alpha/node_modules/hidden/x.node',
      'x',
      /^node_modules\/alpha\/node_modules\/hidden\/x\.node:/,
    ],
    ['binding.gyp', '{}', /^the project itself: binding\.gyp/],
    [
      'node_modules/alpha/package.json',
      { version: '1.0.0', gypfile: true },
      /^node_modules\/alpha: .*"gypfile": true/,
    ],
    [
      'node_modules/alpha/package.json',
      { version: '1.0.1' },
      /^node_modules\/alpha: version on disk is "1\.0\.1", the lock says "1\.0\.0"/,
    ],
    ...['preinstall', 'install', 'postinstall'].map(
      (script) =>
        [
          'node_modules/beta/package.json',
          { version: '1.0.0', scripts: { [script]: 'node x.js', test: 'y' } },
          new RegExp(`^node_modules/beta: package.json has a script "${script}"$`),
        ] as const,
    ),
  ];
  for (const [index, [path, content, expected]] of planted.entries()) {
    test(`finds ${path} planted as number ${index + 1}`, () => {
      const project = plant(`planted-${index}`);
      write(project, path, content);
      assertOneFinding(run('check.mjs', project), expected);
    });
  }

  const gamma = { 'node_modules/gamma': { version: '1.0.0', optional: true } };
  const changed: readonly (readonly [string, Tree, RegExp])[] = [
    [
      'an install script that only the lock knows',
      { locked: { 'node_modules/beta': { version: '1.0.0', hasInstallScript: true } } },
      /^node_modules\/beta: the lock says/,
    ],
    [
      'a package nobody allowed, though marked as a development one',
      {
        locked: {
          'node_modules/beta': { version: '1.0.0', optionalDependencies: { gamma: '1' } },
          'node_modules/gamma': { version: '1.0.0', dev: true, optional: true },
        },
      },
      /^gamma: is not on the allow-list \(needed by beta\)$/,
    ],
    [
      'an allowed package that is gone',
      { allowed: { gamma: { neededBy: ['beta'], why: 'was used' } } },
      /^gamma: is on the allow-list, but no longer in the run-time tree$/,
    ],
    [
      'a parent that the allow-list does not name',
      { allowed: { beta: { neededBy: ['haports'], why: 'second' } } },
      /^beta: the allow-list says needed by "haports", the lock says "alpha"$/,
    ],
    [
      'a package allowed without a reason',
      { allowed: { beta: { neededBy: ['alpha'] } } },
      /^beta: is allowed without a reason$/,
    ],
    [
      'a required package that is not on disk',
      {
        locked: {
          'node_modules/beta': { version: '1.0.0', dependencies: { gamma: '1' } },
          'node_modules/gamma': { version: '1.0.0' },
        },
        allowed: { gamma: { neededBy: ['beta'], why: 'third' } },
      },
      /^node_modules\/gamma: is not on disk/,
    ],
    [
      'a dependency that the lock lacks',
      { locked: { 'node_modules/beta': { version: '1.0.0', peerDependencies: { gamma: '1' } } } },
      /^node_modules\/beta: needs "gamma", which the lock lacks$/,
    ],
    [
      'an install script of the project itself',
      { manifest: { scripts: { postinstall: 'node x.js' } } },
      /^the project itself: package\.json has a script "postinstall"$/,
    ],
  ];
  for (const [index, [what, tree, expected]] of changed.entries()) {
    test(`finds ${what}`, () =>
      assertOneFinding(run('check.mjs', plant(`changed-${index}`, tree)), expected));
  }

  test('grants WebAssembly to the package that has it on the list, and lets an optional package be absent', () => {
    const project = plant('granted', {
      locked: {
        'node_modules/beta': { version: '1.0.0', optionalDependencies: { gamma: '1' } },
        ...gamma,
      },
      allowed: {
        beta: { neededBy: ['alpha'], why: 'second', wasm: 'a hash' },
        gamma: { neededBy: ['beta'], why: 'optional' },
      },
    });
    write(project, 'node_modules/beta/hash.wasm', wasm);
    assert.deepEqual(findingsOf(run('check.mjs', project)), []);
  });

  test('says in one line what it cannot check', () => {
    const outcome = run('check.mjs', join(scratch, 'nowhere'));
    assert.equal(outcome.status, 1);
    assert.match(outcome.lines.join('\n'), /^native-free: cannot check ".*nowhere": ENOENT.*$/);
  });
});

function assertOneFinding(outcome: Outcome, expected: RegExp): void {
  const findings = findingsOf(outcome);
  assert.equal(findings.length, 1, `one finding wanted, got: ${findings.join('; ')}`);
  assert.match(findings[0] ?? '', expected);
  assert.equal(outcome.status, 1);
  assert.match(outcome.lines.at(-1) ?? '', /, 1 findings$/);
}

describe('native-free/allow-list.json', () => {
  test('and the README name the same direct packages as package.json', () => {
    const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
      dependencies: Json;
      optionalDependencies: Json;
    };
    const direct = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }).sort();
    const readme = readFileSync('native-free/README.md', 'utf8').split('## Run-time packages')[1] ?? '';
    const named = [...readme.matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1]).sort();
    assert.deepEqual(named, direct);
  });
});

describe('native-free/build.mjs --if-stale', () => {
  const BUNDLER = 'node_modules/rolldown';

  /** A project whose bundler is a script that writes what a bundler would, or fails. */
  function plantProject(name: string, bundler?: 'works' | 'fails'): string {
    const project = join(scratch, name);
    write(project, 'native-free/build.mjs', readFileSync('native-free/build.mjs'));
    for (const path of ['src/main.ts', 'src/model/noun.ts']) write(project, path, 'export {};\n');
    for (const name of ['index.html', 'style.css']) write(project, `src/admin/page/${name}`, '1');
    write(project, 'node_modules/uplot/dist/uPlot.min.css', '');
    if (bundler === undefined) return project;
    write(project, `${BUNDLER}/package.json`, { name: 'rolldown', type: 'module', exports: './index.js' });
    write(
      project,
      `${BUNDLER}/index.js`,
      `import { mkdirSync, writeFileSync } from 'node:fs';
      export const rolldown = async ({ input }) => ({
        async write({ dir }) {
          console.log('built', Object.keys(input).join(' '));
          mkdirSync(dir, { recursive: true });
          for (const name of Object.keys(input)) writeFileSync(dir + '/' + name + '.js', '');
          if (${bundler === 'fails'} && input.main !== undefined) throw new Error('it does not parse');
        },
      });`,
    );
    return project;
  }

  function build(project: string): Outcome {
    const script = join(project, 'native-free/build.mjs');
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--if-stale'], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    return { status, lines: `${stdout}${stderr}`.trim().split('\n') };
  }

  function touch(path: string, afterMs: number): void {
    const time = new Date(Date.now() + afterMs);
    utimesSync(path, time, time);
  }

  test('builds when dist/ is missing, then rests until a source changes or a program is gone', () => {
    const project = plantProject('builds', 'works');
    const built = (): boolean => build(project).lines.includes('built main commands worker nva-main');
    assert.equal(built(), true, 'nothing was built yet');
    assert.equal(built(), false, 'everything is built');
    touch(join(project, 'src/model/noun.ts'), 5000);
    assert.equal(built(), true, 'a source is newer');
    touch(join(project, 'src/model/noun.ts'), -5000);
    assert.equal(built(), false, 'everything is built again');
    for (const gone of ['main.js', 'worker.js', 'admin/page/index.html']) {
      rmSync(join(project, 'dist', gone));
      assert.equal(built(), true, `${gone} is missing`);
    }
    for (const path of ['package-lock.json', 'tsconfig.json', 'native-free/build.mjs']) {
      if (path.endsWith('.json')) write(project, path, '{}');
      touch(join(project, path), 5000);
      assert.equal(built(), true, `${path} is newer`);
      touch(join(project, path), -5000);
    }
    assert.equal(built(), false, 'everything is built in the end');
  });

  test('builds the page of the dashboard and copies its HTML, again when that changes', () => {
    const project = plantProject('page', 'works');
    const page = 'admin/page/index.html';
    assert.ok(build(project).lines.includes('built app'));
    assert.equal(readFileSync(join(project, 'dist', page), 'utf8'), '1');
    write(project, `src/${page}`, '2');
    touch(join(project, 'src', page), 5000);
    build(project);
    assert.equal(readFileSync(join(project, 'dist', page), 'utf8'), '2');
  });

  test('says what to do when the bundler is not installed', () => {
    const outcome = build(plantProject('no-bundler'));
    assert.equal(outcome.status, 1);
    assert.equal(
      outcome.lines.at(-1),
      'haports: Cannot build: haports is not built and the bundler is not installed; run "npm ci" without --omit=dev',
    );
  });

  test('does not take the output of a failed build for a build', () => {
    const project = plantProject('failing', 'fails');
    for (const attempt of ['first', 'second']) {
      const outcome = build(project);
      assert.equal(outcome.status, 1, `${attempt} attempt`);
      assert.ok(outcome.lines.includes('built main commands worker nva-main'), `${attempt} attempt builds`);
      assert.equal(outcome.lines.at(-1), 'haports: Cannot build: it does not parse');
    }
  });

  test('does nothing in an installed package, which has no sources', () => {
    const project = plantProject('installed');
    rmSync(join(project, 'src'), { recursive: true });
    assert.deepEqual(build(project), { status: 0, lines: [''] });
  });
});
