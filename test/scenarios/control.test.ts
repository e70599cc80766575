import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createHasher } from '../../src/selection/flow-hash.js';
import { ControlLoop } from './control-loop.js';

const FOLDER = join('test', 'scenarios', 'control');
const hash = await createHasher();

/**
 * A scenario is a transcript: a line with `$` says what happens, indented lines below it are what came of that, all else
 * is for people. UPDATE_GOLDEN=1 writes what comes out; read the difference.
 */
describe('the control loop', () => {
  for (const name of readdirSync(FOLDER).sort()) {
    test(name.replace(/\.txt$/, '').replaceAll('-', ' '), async () => {
      const path = join(FOLDER, name);
      const recorded = readFileSync(path, 'utf8');
      const loop = new ControlLoop(hash);
      const lines: string[] = [];
      for (const line of recorded.split('\n').filter((each) => !each.startsWith('  '))) {
        lines.push(line);
        const [, waits, command] = /^\$ (wait )?(.*)$/.exec(line) ?? [];
        if (command === undefined) continue;
        const outcomes = await (waits === undefined ? loop.run(command) : loop.wait(command));
        lines.push(...outcomes.map((outcome) => `  ${outcome}`));
      }
      const text = lines.join('\n');
      if (process.env['UPDATE_GOLDEN'] === undefined) assert.equal(text, recorded);
      else writeFileSync(path, text);
    });
  }
});
