import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { demoBanner } from '../../../src/demo/demo.js';
import { relinked } from '../../support/forwarding-state.js';
import { sampleConfiguration, sampleRule } from '../observe/sample-state.js';

const EXPLAIN = 'npx haports explain -c config.json';

/** A copy without one of its members. */
function without<T extends object, K extends keyof T>(value: T, key: K): Omit<T, K> {
  const copy = { ...value };
  Reflect.deleteProperty(copy, key);
  return copy;
}

describe('demoBanner()', () => {
  test('demoBanner() says what runs and what to try', () => {
    assert.equal(
      demoBanner(sampleConfiguration(), EXPLAIN),
      [
        'haports balances 127.0.0.1, TCP and UDP, ports 8000-8099, over nva-1, nva-2',
        'haports balances ::1, TCP and UDP, ports 8000-8099, over nva-1, nva-2',
        '',
        "  TCP      printf 'hello\\n' | nc -N 127.0.0.1 8000",
        '  UDP      printf hello | nc -u -w1 127.0.0.1 8000',
        '  browser  http://127.0.0.1:8080/',
        '  explain  npx haports explain -c config.json tcp 127.0.0.1:40000 127.0.0.1:8000',
        '  sick     curl -X POST http://127.0.0.11:9000/sick     (and /well again)',
        '  metrics  http://127.0.0.1:9902/metrics',
        '',
        'Ctrl-C stops it all.',
        '',
      ].join('\n'),
    );
  });

  test('demoBanner() names the dashboard where there is one', () => {
    const { metrics } = sampleConfiguration();
    assert.ok(metrics !== undefined);
    const banner = demoBanner(
      { ...sampleConfiguration(), admin: { http: { ...metrics, port: 9901 } } },
      EXPLAIN,
    );
    assert.match(banner, /^ {2}operate {2}http:\/\/127\.0\.0\.1:9901\/ {5}\(dashboard\)$/m);
  });

  test('demoBanner() leaves out what the configuration does not have', () => {
    const base = without(sampleConfiguration(), 'metrics');
    const ports = [{ first: 53, last: 53 }];
    const bare = { ...without(sampleRule('dns', 'hub6'), 'probe'), protocols: ['udp'] as const, ports };
    assert.equal(
      demoBanner(relinked({ ...base, rules: [bare] }), EXPLAIN),
      [
        'haports balances ::1, UDP, ports 53, over nva-1, nva-2',
        '',
        '  UDP      printf hello | nc -u -w1 ::1 53',
        '  explain  npx haports explain -c config.json udp [::1]:40000 [::1]:53',
        '',
        'Ctrl-C stops it all.',
        '',
      ].join('\n'),
    );
  });
});
