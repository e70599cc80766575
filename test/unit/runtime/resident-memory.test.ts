import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { residentMemory } from '../../../src/runtime/machine.js';

function filesWith(files: Readonly<Record<string, string>>) {
  return {
    readText: (path: string) => {
      const text = files[path.replace(new RegExp(`/${process.pid}(?=/)`, 'g'), '/self')];
      return text === undefined ? Promise.reject(new Error(`ENOENT ${path}`)) : Promise.resolve(text);
    },
  };
}

void describe('residentMemory()', () => {
  test('adds up this process and its children, one that has just ended for nothing', async () => {
    const files = filesWith({
      '/proc/self/task/self/children': '11 12 13 \n',
      '/proc/self/status': 'Name:\tnode\nVmRSS:\t   1000 kB\n',
      '/proc/11/status': 'VmRSS:\t 200 kB\nThreads:\t1\n',
      '/proc/12/status': 'VmRSS:\t 30 kB\n',
    });
    assert.deepEqual(await residentMemory(files), { processes: 4, bytes: 1230 * 1024 });
  });

  test('is close to what Node says of a process without children', async () => {
    const memory = await residentMemory();
    const own = process.memoryUsage.rss();
    assert.ok(
      memory !== undefined && Math.abs(memory.bytes - own) < own / 4,
      JSON.stringify({ memory, own }),
    );
  });

  test('is unknown where there is no /proc', async () => {
    assert.equal(await residentMemory(filesWith({})), undefined);
  });
});
