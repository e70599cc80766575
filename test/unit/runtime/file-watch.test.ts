import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { systemClock } from '../../../src/runtime/clock.js';
import { watchFile } from '../../../src/runtime/watch.js';
import { systemFileChanges, systemFiles, type FileChanges } from '../../../src/runtime/files.js';
import { eventually } from '../../support/deadline.js';
import { FakeClock } from '../../support/fake-clock.js';

let folder: string;
let path: string;
let texts: string[];
let stop: () => void = () => undefined;

/** Without a word from the system: only what polls see. */
const silent: FileChanges = { ...systemFileChanges, watchFolder: () => () => undefined };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'haports-watch-'));
  path = join(folder, 'config.json');
  await writeFile(path, 'one');
  texts = [];
});

afterEach(async () => {
  stop();
  await rm(folder, { recursive: true });
});

async function watching(changes: FileChanges, at = path): Promise<void> {
  stop = await watchFile({ clock: systemClock, files: systemFiles, changes }, at, (text) => texts.push(text));
}

async function seen(expected: readonly string[]): Promise<void> {
  await eventually(() => texts.length >= expected.length, 10_000, expected.join());
  assert.deepEqual(texts, expected);
}

async function renameOver(text: string): Promise<void> {
  await writeFile(join(folder, '.config.json.swp'), text);
  await rename(join(folder, '.config.json.swp'), path);
}

for (const [how, changes] of [
  ['by what the system tells', { ...systemFileChanges, signature: () => Promise.resolve('never changes') }],
  ['by polling', silent],
] as const) {
  describe(`watchFile() ${how}`, () => {
    test('sees a write in place and a rename over the file, each once', async () => {
      await watching(changes);
      await writeFile(path, 'two');
      await seen(['two']);
      await renameOver('three');
      await seen(['two', 'three']);
    });

    test('sees a swapped symbolic link', async () => {
      for (const version of ['v1', 'v2']) {
        await mkdir(join(folder, version));
        await writeFile(join(folder, version, 'config.json'), version);
      }
      await unlink(path);
      await symlink('v1', join(folder, '..data'));
      await symlink(join('..data', 'config.json'), path);
      await watching(changes);
      await symlink('v2', join(folder, '..data_tmp'));
      await rename(join(folder, '..data_tmp'), join(folder, '..data'));
      await seen(['v2']);
    });
  });
}

describe('watchFile()', () => {
  test('takes the same content again for no change, and waits for a file that is missing', async () => {
    const clock = new FakeClock();
    let told: (name: string | undefined) => void = () => undefined;
    let text: string | undefined = 'one';
    let reads = 0;
    const files = {
      readText: () => {
        reads++;
        return text === undefined ? Promise.reject(new Error('ENOENT')) : Promise.resolve(text);
      },
    };
    const changes: FileChanges = {
      signature: () => Promise.resolve('same'),
      watchFolder: (_folder, listener) => {
        told = listener;
        return () => undefined;
      },
    };
    stop = await watchFile({ clock, files, changes }, '/etc/haports/config.json', (one) => texts.push(one));
    const change = async (
      now: string | undefined,
      name: string | undefined = 'config.json',
    ): Promise<void> => {
      text = now;
      told(name);
      await clock.advanceAsync(200);
    };
    await change('one');
    await change(undefined);
    await change('two');
    await change('three', 'flow.log');
    assert.deepEqual(texts, ['two'], 'other files in the folder are nobody’s business');
    assert.equal(reads, 4);
    await change('four', undefined);
    assert.deepEqual(texts, ['two', 'four']);
    told('config.json');
    await clock.advanceAsync(150);
    await change('five');
    assert.equal(reads, 6, 'a burst of changes is looked at once');
    stop();
    await change('six');
    assert.deepEqual(texts, ['two', 'four', 'five']);
    assert.equal(clock.pendingTimers <= 1, true);
  });

  test('watches what is not there yet', async () => {
    await unlink(path);
    await watching(systemFileChanges);
    await writeFile(path, 'new');
    await seen(['new']);
  });
});
