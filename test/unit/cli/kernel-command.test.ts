import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BalancerError } from '../../../src/model/errors.js';
import { haExample } from '../../support/example.js';
import { FakeDeps } from './fake-deps.js';

describe('haports kernel ruleset', () => {
  test('prints what a start would write, in full if told so', async () => {
    const deps = FakeDeps.with(haExample());
    assert.equal(await deps.run('kernel', 'ruleset'), 0);
    assert.equal(await deps.run('kernel', 'ruleset', '--full'), 0);
    assert.equal(deps.stdout, 'table of haports\ntable of haports in full\n');
  });

  test('says what is wrong with a configuration', async () => {
    const deps = FakeDeps.with('{}');
    assert.equal(await deps.run('kernel', 'ruleset'), 2);
    assert.match(deps.stderr, /error/);
    assert.equal(deps.stdout, '');
  });
});

describe('haports kernel flush', () => {
  test('removes what the instance has left, haports unless told otherwise', async () => {
    const deps = new FakeDeps();
    assert.equal(await deps.run('kernel', 'flush'), 0);
    deps.leftovers = ['table inet haports-edge', 'ip -4 route local 240.7.0.0/16 dev lo'];
    assert.equal(await deps.run('kernel', 'flush', '--instance', 'edge'), 0);
    assert.deepEqual(deps.flushed, ['haports', 'edge']);
    assert.equal(
      deps.stdout,
      'Instance "haports" has left nothing in the kernel\n' +
        'Removed table inet haports-edge\nRemoved ip -4 route local 240.7.0.0/16 dev lo\n',
    );
  });

  test('takes no name that could be more than a name for nft', async () => {
    for (const name of ['x; flush ruleset', '', '-x', 'A', 'x'.repeat(64)]) {
      const deps = new FakeDeps();
      assert.equal(await deps.run('kernel', 'flush', '--instance', name), 2, name);
      assert.deepEqual(deps.flushed, []);
    }
  });

  test('fails where the instance runs', async () => {
    const deps = new FakeDeps();
    const running = new BalancerError('It runs', { code: 'LB_INSTANCE_RUNNING', source: 'system' });
    deps.kernel.flush = () => Promise.reject(running);
    assert.equal(await deps.run('kernel', 'flush'), 1);
    assert.match(deps.stderr, /^haports: LB_INSTANCE_RUNNING: It runs\n$/);
  });
});

describe('haports kernel', () => {
  test('knows two actions', async () => {
    const deps = new FakeDeps();
    assert.equal(await deps.run('kernel', 'burn'), 2);
    assert.match(deps.stderr, /Allowed choices are ruleset, flush/);
  });
});
