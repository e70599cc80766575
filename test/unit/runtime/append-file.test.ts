import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { errorCode } from '../../../src/model/errors.js';
import { nodeAppendFiles } from '../../../src/runtime/files.js';

describe('nodeAppendFiles', () => {
  test('append() adds to what is there, also after someone else wrote', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'haports-append-'));
    try {
      const path = join(directory, 'file');
      const file = await nodeAppendFiles.open(path);
      assert.deepEqual(await file.append(Buffer.from('one ')), { written: 4 });
      await writeFile(path, 'two ', { flag: 'a' });
      assert.deepEqual(await file.append(Buffer.from('three')), { written: 5 });
      await file.close();
      await file.close();
      assert.equal(await readFile(path, 'utf8'), 'one two three');
      const { written, error } = await file.append(Buffer.from('x'));
      assert.deepEqual([written, errorCode(error)], [0, 'EBADF']);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('append() tells of a full disk', async (t) => {
    if (!existsSync('/dev/full')) {
      t.skip('there is no /dev/full here');
      return;
    }
    const file = await nodeAppendFiles.open('/dev/full');
    const { written, error } = await file.append(Buffer.from('x'));
    assert.deepEqual([written, errorCode(error)], [0, 'ENOSPC']);
    await file.close();
  });

  test('open() rejects where it cannot', async () => {
    await assert.rejects(nodeAppendFiles.open(join(tmpdir(), 'haports-no-such-directory', 'file')), {
      code: 'ENOENT',
    });
  });
});
