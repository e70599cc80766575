import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import { fetchFromAnywhere } from '../../../src/observe/webhook.js';

const REQUEST = {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: '{"a":1}',
  redirect: 'manual',
  signal: new AbortController().signal,
} as const;

function failing(code: string) {
  return () =>
    Promise.reject(new TypeError('fetch failed', { cause: Object.assign(new Error(code), { code }) }));
}

void describe('fetchFromAnywhere()', () => {
  test('posts from an own address where the kernel has no port for others', async () => {
    const got: string[] = [];
    const server = createServer((request, response) => {
      request.setEncoding('utf8').on('data', (part: string) => got.push(`${request.method} ${part}`));
      request.on('end', () => response.writeHead(202).end('thanks'));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      const answer = await fetchFromAnywhere(failing('EADDRNOTAVAIL'))(`http://127.0.0.1:${port}/`, REQUEST);
      assert.equal(answer.status, 202);
      assert.deepEqual(got, ['POST {"a":1}']);
    } finally {
      server.close();
    }
  });

  test('leaves any other failure alone', async () => {
    const posting = fetchFromAnywhere(failing('ECONNREFUSED'))('http://127.0.0.1:9/', REQUEST);
    await assert.rejects(posting, { message: 'fetch failed' });
  });
});
