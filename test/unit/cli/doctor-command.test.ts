import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { haExample } from '../../support/example.js';
import { FakeDeps } from './fake-deps.js';

describe('haports doctor', () => {
  test('prints sections with what to do, and ends with 1 where there is a problem', async () => {
    const deps = FakeDeps.with(haExample());
    assert.equal(await deps.run('doctor'), 1);
    assert.match(deps.stdout, /^This machine\n {2}note {5}nft is not installed/);
    assert.match(deps.stdout, /\n {2}PROBLEM {2}No answer from /);
    assert.match(deps.stdout, /\n\d+ problems?, 0 warnings\n$/);
    assert.equal(deps.signalListeners, 0);
  });

  test('ends with 0 where there is none, and tries the port that is named', async () => {
    const deps = FakeDeps.with(haExample());
    const ports = new Set<number>();
    deps.doctor = {
      ...deps.doctor,
      connect: ({ port }) => {
        ports.add(port);
        return Promise.resolve('connected');
      },
    };
    assert.equal(await deps.run('doctor', '--json', '--port', '8080'), 0);
    assert.equal((JSON.parse(deps.stdout) as { healthy: boolean }).healthy, true);
    assert.deepEqual([...ports], [8080]);
  });

  test('says what is wrong with a configuration', async () => {
    const deps = FakeDeps.with('{}');
    assert.equal(await deps.run('doctor'), 2);
    assert.equal(deps.stdout, '');
  });
});
