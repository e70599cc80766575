import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { runCommand } from '../support/commands.js';

/** A compiler on one thread takes two thirds of the work, and the processors are busy with other tests. */
const TIMEOUT_MS = 280_000;

describe('the type check', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    readonly scripts: Readonly<Record<string, string>>;
  };
  const projects = (scripts['typecheck'] ?? '').split(' && ');

  test('is of two projects', () => assert.equal(projects.length, 2));

  for (const command of projects) {
    test(`finds nothing: ${command}`, async () => {
      const { code, stdout } = await runCommand('sh', ['-c', command], { timeoutMs: TIMEOUT_MS });
      assert.equal(stdout, '');
      assert.equal(code, 0);
    });
  }
});
