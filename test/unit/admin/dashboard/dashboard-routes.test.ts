import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { dashboardRoutes } from '../../../../src/admin/dashboard.js';

const PAGE = 'src/admin/page';
/** Modules of the page, without descriptions of others'. */
const SOURCES = readdirSync(PAGE).filter((name) => /\.tsx?$/.test(name) && !name.endsWith('.d.ts'));

async function get(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> {
  return dashboardRoutes().request(path, { method, headers });
}

describe('dashboardRoutes()', () => {
  test('serves the page with a policy that allows nothing but its own files', async () => {
    const response = await get('/');
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'text/html; charset=utf-8');
    assert.equal(
      response.headers.get('content-security-policy'),
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    assert.equal(response.headers.get('cache-control'), 'no-cache');
    assert.equal(await response.text(), readFileSync(`${PAGE}/index.html`, 'utf8'));
  });

  test('serves every file that the page names, and no module of those needs another', async () => {
    const named = [...(await (await get('/')).text()).matchAll(/(?:href|src)="(assets\/[^"]+)"/g)].map(
      ([, path]) => `/${path ?? ''}`,
    );
    assert.deepEqual(named.toSorted(), ['/assets/app.js', '/assets/style.css', '/assets/uplot.css']);
    for (const path of named) {
      const response = await get(path);
      assert.equal(response.status, 200, path);
      const expected = path.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8';
      assert.equal(response.headers.get('content-type'), expected, path);
      assert.doesNotMatch(await response.text(), /^import\b/m, path);
    }
  });

  test('serves modules that never make HTML or code of a text', () => {
    for (const name of SOURCES) {
      const source = readFileSync(`${PAGE}/${name}`, 'utf8');
      assert.doesNotMatch(
        source,
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|localStorage/i,
        name,
      );
    }
  });

  test('answers 304 to whoever has the same', async () => {
    const etag = (await get('/assets/app.js')).headers.get('etag') ?? '';
    assert.match(etag, /^"[\w-]{27}"$/);
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const response = await get('/assets/app.js', { 'if-none-match': known });
      assert.equal(response.status, 304, known);
      assert.equal(response.headers.get('etag'), etag);
      assert.equal(await response.text(), '');
    }
    assert.equal((await get('/assets/app.js', { 'if-none-match': '"other"' })).status, 200);
    assert.notEqual((await get('/assets/style.css')).headers.get('etag'), etag);
  });

  test('looks names up and never resolves them', async () => {
    for (const path of [
      '/assets/nothing.js',
      '/assets/..%2Fdashboard-routes.js',
      '/assets/..%2f..%2f..%2fmain.js',
      '/assets/%2Fetc%2Fpasswd',
      '/assets/index.html',
      '/assets/constructor',
      '/assets/',
    ]) {
      assert.equal((await get(path)).status, 404, path);
    }
  });

  test('answers HEAD without a body', async () => {
    const response = await get('/assets/style.css', {}, 'HEAD');
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'text/css; charset=utf-8');
    assert.equal(await response.text(), '');
  });

  test('says so when its files are missing, and reads none of them twice', async () => {
    const missing = dashboardRoutes({ readText: () => Promise.reject(new Error('ENOENT')) });
    assert.equal((await missing.request('/')).status, 500);
    let reads = 0;
    const app = dashboardRoutes({ readText: () => Promise.resolve(`text ${++reads}`) });
    const first = await (await app.request('/')).text();
    const after = reads;
    assert.equal(await (await app.request('/')).text(), first);
    assert.equal(reads, after);
  });
});
