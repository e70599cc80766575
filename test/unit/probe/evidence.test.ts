import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failed, formatDuration, noAnswer } from '../../../src/health/probes.js';
import { httpProbe, tcpProbe } from './probe-fixtures.js';

const systemError = (code: string) => Object.assign(new Error(`connect ${code}`), { code });

test('failed() says that a probe which never left this process is inconclusive', () => {
  for (const code of ['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']) {
    const { inconclusive, evidence } = failed(systemError(code), tcpProbe());
    assert.equal(inconclusive, true);
    assert.match(evidence, new RegExp(`^${code} \\(local problem: `));
  }
});

test('failed() counts other local problems, but names them', () => {
  for (const code of ['EADDRNOTAVAIL', 'ENETUNREACH', 'EACCES']) {
    const verdict = failed(systemError(code), httpProbe());
    assert.equal('inconclusive' in verdict, false);
    assert.match(verdict.evidence, /local problem/);
  }
});

test('failed() takes a refusal as an answer to a TCP probe only', () => {
  assert.equal(failed(systemError('ECONNREFUSED'), tcpProbe()).answer, 'explicit');
  assert.equal(failed(systemError('ECONNREFUSED'), httpProbe()).answer, 'silence');
  assert.equal(failed(systemError('ETIMEDOUT'), tcpProbe()).answer, 'silence');
  assert.equal(failed(systemError('EHOSTUNREACH'), tcpProbe()).evidence, 'EHOSTUNREACH');
});

test('noAnswer() names the timeout as people write it', () => {
  assert.equal(noAnswer(tcpProbe({ timeoutMs: 5000 })).evidence, 'no answer in 5s');
  assert.equal(formatDuration(1500), '1.5s');
  assert.equal(formatDuration(250), '250ms');
});
