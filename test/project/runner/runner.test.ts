import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { failureLines, groupLines, totalsOf } from '../../runner/output.js';
import { parseSelection, planGroups } from '../../runner/plan.js';
import { runGroup, type GroupResult } from '../../runner/process.js';

const PLANES = [1, 2, 3, 4, 5, 6].map((n) => `unit/planes/nat/rules-${n}.test.js`);
const FILES = [
  'architecture/layout.test.js',
  'kernel/nat-rules.test.js',
  'property/config.test.js',
  'unit/flow/table.test.js',
  ...PLANES,
  'unit/planes/udp.test.js',
];

function plan(...args: readonly string[]): Record<string, readonly string[]> {
  const groups = planGroups(FILES, parseSelection(args, {}));
  return Object.fromEntries(groups.map(({ name, files }) => [name, files]));
}

describe('planGroups()', () => {
  test('gives a folder a process, one to the small folders of the quick run, and one to a file where tests start processes', () => {
    assert.deepEqual(plan(), {
      'kernel/nat-rules': ['kernel/nat-rules.test.js'],
      'unit/planes': [...PLANES, 'unit/planes/udp.test.js'],
      'small folders': ['property/config.test.js', 'unit/flow/table.test.js'],
      architecture: ['architecture/layout.test.js'],
    });
  });

  test('starts first what takes longest', () => {
    assert.deepEqual(Object.keys(plan()), [
      'small folders',
      'kernel/nat-rules',
      'unit/planes',
      'architecture',
    ]);
  });

  test('takes the files whose path contains one of the words, by the name of their source too', () => {
    assert.deepEqual(plan('unit/planes/u', 'property'), {
      'small folders': ['property/config.test.js', 'unit/planes/udp.test.js'],
    });
    assert.deepEqual(plan('test/unit/flow/table.test.ts'), { 'unit/flow': ['unit/flow/table.test.js'] });
  });

  test('runs unit tests, property tests and scenarios in a quick run', () => {
    assert.deepEqual(plan('--quick'), {
      'unit/planes': [...PLANES, 'unit/planes/udp.test.js'],
      'small folders': ['property/config.test.js', 'unit/flow/table.test.js'],
    });
  });

  test('refuses options that do not exist', () => {
    assert.throws(() => parseSelection(['--fast'], {}), /Unknown option "--fast"/);
  });
});

describe('runGroup()', { concurrency: true }, () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-runner-'));
  });
  after(() => rm(folder, { recursive: true }));

  const HEAD = `import { afterEach, describe, test } from 'node:test';\nimport { createServer } from 'node:net';\n`;

  /** Runs files of these texts in one process, which may be silent for so long. */
  async function run(texts: readonly string[], silenceMs = 60_000): Promise<GroupResult> {
    const own = await mkdtemp(join(folder, 'group-'));
    const files = await Promise.all(
      texts.map(async (text, index) => {
        const path = join(own, `${index}.test.mjs`);
        await writeFile(path, HEAD + text);
        return path;
      }),
    );
    const options = { silenceMs, nodeOptions: [], env: process.env };
    return runGroup({ name: 'planted', files }, options, new AbortController().signal);
  }

  test('counts over files as node:test does, and keeps the hooks of a file to that file', async () => {
    const result = await run([
      `let count = 0; afterEach(() => count++);
       test('a', () => {}); test('skipped', { skip: 'no tool' }, () => {});
       test('after one', (t) => { if (count !== 1) throw new Error(String(count)); });`,
      `describe('suite', () => { test('b', (t) => t.diagnostic('noted')); });`,
    ]);
    assert.equal(result.trouble, undefined);
    assert.deepEqual(totalsOf([result]), {
      ...{ tests: 4, suites: 1, pass: 3, fail: 0, cancelled: 0, skipped: 1, todo: 0 },
    });
    assert.match(
      groupLines(result, true),
      /^✔ planted: 4 tests.*\n {2}✔ a .*\n {2}﹣ skipped: skipped # no tool/,
    );
    assert.match(groupLines(result, false), /ℹ noted/);
  });

  test('names file, line, suite and test of a failure, and ends a process that it keeps', async () => {
    const result = await run([
      `describe('suite', () => { test('opens', () => { createServer().listen(0); throw new Error('planted'); }); });`,
    ]);
    assert.equal(result.trouble, undefined);
    assert.equal(totalsOf([result]).fail, 1);
    assert.match(
      failureLines([result]),
      /✖ .*0\.test\.mjs > suite > opens\n {2}at .*0\.test\.mjs:3\n.*Error: planted/,
    );
  });

  test('fails when a file cannot be imported, and runs the others', async () => {
    const result = await run([`import './absent.mjs';`, `test('runs', () => {});`]);
    assert.deepEqual([totalsOf([result]).pass, totalsOf([result]).fail], [1, 1]);
    assert.match(failureLines([result]), /ERR_MODULE_NOT_FOUND|Cannot find module/);
  });

  test('fails when passed tests leave something open, and says what', async () => {
    const result = await run([`test('opens', () => { createServer().listen(0); });`]);
    assert.match(result.trouble ?? '', /something keeps the process: .*TCP/);
    assert.equal(totalsOf([result]).fail, 1);
  });

  for (const [how, body] of [
    ['waits for ever', 'setInterval(() => {}, 1000); await new Promise(() => {});'],
    ['never yields', 'await null; for (;;);'],
  ]) {
    test(`ends a process whose test ${how}, and says which`, async () => {
      const result = await run(
        [`describe('suite', () => { test('hangs', async () => { ${body} }); });`],
        5000,
      );
      assert.match(
        result.trouble ?? '',
        /^nothing happened for 5 s while this ran: .*0\.test\.mjs > "suite".*> "hangs"/,
      );
    });
  }

  test('fails when a test ends the process', async () => {
    const result = await run([`test('leaves', () => { process.exit(0); });`]);
    assert.match(result.trouble ?? '', /ended with exit code 0 while this ran: .*"leaves"/);
  });
});
