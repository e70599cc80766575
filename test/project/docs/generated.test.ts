import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { GENERATED, generate } from '../../../tools/generate.js';

describe('generated files', () => {
  for (const path of Object.keys(GENERATED)) {
    test(`${path} is what npm run generate writes`, async () => {
      assert.equal(await readFile(path, 'utf8'), await generate(path), 'run npm run generate');
    });
  }
});
