import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { errorCode } from '../../../src/model/errors.js';
import { nodeAppendFiles, readChunks, systemFileChanges, systemFiles } from '../../../src/runtime/files.js';
import { within } from '../../support/deadline.js';

const folder = await mkdtemp(join(tmpdir(), 'haports-files-'));
after(() => rm(folder, { recursive: true }));

describe('systemFiles', () => {
  const readText = (path: string): Promise<string> => systemFiles.readText(path);
  const mebibytes = (count: number): Buffer => Buffer.alloc(count * 1024 * 1024, 'x');

  test('readText() gives a whole file, a symbolic link`s too, and files that tell no size', async () => {
    const path = join(folder, 'text');
    await writeFile(path, 'gr\u00fc\u00dfe');
    await symlink(path, `${path}.link`);
    assert.equal(await readText(`${path}.link`), 'gr\u00fc\u00dfe');
    await writeFile(path, '');
    assert.equal(await readText(path), '');
    assert.match(await readText('/proc/self/status'), /^Name:/);
  });

  test('readText() refuses pipes and devices at once instead of waiting for their end', async () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    for (const path of [pipe, '/dev/zero']) {
      await assert.rejects(within(readText(path), 5000, path), {
        code: 'LB_CONFIG_UNREADABLE',
        message: 'It is a pipe, a device or a socket, must be a regular file',
      });
    }
  });

  test('readText() takes 16 MiB and refuses more', async () => {
    const path = join(folder, 'endless');
    await writeFile(path, mebibytes(16));
    assert.equal((await readText(path)).length, 16 * 1024 * 1024);
    await writeFile(path, 'x', { flag: 'a' });
    await assert.rejects(readText(path), { code: 'LB_CONFIG_UNREADABLE', message: /larger than 16 MiB/ });
  });

  test('readText() rejects with the system`s error', async () => {
    await assert.rejects(readText(join(folder, 'missing')), { code: 'ENOENT' });
    await assert.rejects(readText(folder), { code: 'EISDIR' });
  });
});

describe('readChunks()', () => {
  test('readChunks() gives a file of several pieces whole', async () => {
    const path = join(folder, 'large');
    const content = Buffer.alloc(1_000_003, 'haports ');
    await writeFile(path, content);
    const pieces: Uint8Array[] = [];
    for await (const piece of readChunks(path)) pieces.push(piece);
    assert.ok(pieces.length > 1);
    assert.ok(Buffer.concat(pieces).equals(content));
  });

  test('readChunks() rejects with the system`s error', async () => {
    const read = async (path: string): Promise<void> => {
      for await (const piece of readChunks(path)) assert.fail(`${piece.length} bytes`);
    };
    await assert.rejects(read(join(folder, 'missing')), { code: 'ENOENT' });
    await assert.rejects(read(folder), { code: 'EISDIR' });
  });
});

describe('systemFileChanges', () => {
  test('signature() stays while nothing changes, and is another after a write, a rename and a swapped link', async () => {
    const path = join(folder, 'config.json');
    await writeFile(path, 'one');
    const first = await systemFileChanges.signature(path);
    assert.equal(await systemFileChanges.signature(path), first);
    await writeFile(path, 'two, longer');
    const written = await systemFileChanges.signature(path);
    await writeFile(`${path}.new`, 'two, longer');
    await rename(`${path}.new`, path);
    const renamed = await systemFileChanges.signature(path);
    assert.equal(new Set([first, written, renamed]).size, 3);

    const link = join(folder, 'link');
    await symlink(path, link);
    assert.equal(await systemFileChanges.signature(link), renamed);
    await writeFile(join(folder, 'other'), 'x');
    await symlink(join(folder, 'other'), `${link}.new`);
    await rename(`${link}.new`, link);
    assert.notEqual(await systemFileChanges.signature(link), renamed);
    await assert.rejects(systemFileChanges.signature(join(folder, 'missing')), { code: 'ENOENT' });
  });

  test('watchFolder() names what changed until it is stopped, and bears a folder that is missing', async () => {
    const watched = join(folder, 'watched');
    await mkdir(watched);
    const names: (string | undefined)[] = [];
    let heard: () => void = () => undefined;
    const change = new Promise<void>((resolve) => (heard = resolve));
    const stop = systemFileChanges.watchFolder(watched, (name) => {
      names.push(name);
      heard();
    });
    await writeFile(join(watched, 'config.json'), '{}');
    await within(change, 5000, 'a change of the folder');
    assert.ok(names.includes('config.json'), names.join());
    stop();
    systemFileChanges.watchFolder(join(folder, 'missing'), () => assert.fail('there is nothing'))();
  });
});

describe('nodeAppendFiles', () => {
  test('append() adds to what is there, also after someone else wrote', async () => {
    const path = join(folder, 'appended');
    const file = await nodeAppendFiles.open(path);
    assert.deepEqual(await file.append(Buffer.from('one ')), { written: 4 });
    await writeFile(path, 'two ', { flag: 'a' });
    assert.deepEqual(await file.append(Buffer.from('three')), { written: 5 });
    await file.close();
    await file.close();
    assert.equal(await readFile(path, 'utf8'), 'one two three');
    const { written, error } = await file.append(Buffer.from('x'));
    assert.deepEqual([written, errorCode(error)], [0, 'EBADF']);
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
    await assert.rejects(nodeAppendFiles.open(join(folder, 'missing', 'file')), { code: 'ENOENT' });
  });
});
