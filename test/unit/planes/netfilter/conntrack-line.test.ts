import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConntrackLines } from '../../../../src/planes/netfilter/conntrack.js';

/* Lines as conntrack 1.4.7 wrote them. */
const NEW =
  '    [NEW] udp      17 30 src=10.1.0.2 dst=10.9.0.10 sport=44865 dport=55 [UNREPLIED] src=240.1.0.0 dst=10.1.0.2 sport=61000 dport=19369 id=2286605049';
const DESTROY =
  '[DESTROY] udp      17 29 src=10.1.0.2 dst=10.9.0.10 sport=44865 dport=55 src=240.1.0.0 dst=10.1.0.2 sport=61000 dport=19369 id=2286605049 [USERSPACE] portid=2253178544';
const EXPIRED =
  '[DESTROY] udp      17 src=10.1.0.2 dst=10.9.0.10 sport=44865 dport=55 packets=1 bytes=29 [UNREPLIED] src=240.1.0.0 dst=10.1.0.2 sport=61000 dport=19369 packets=0 bytes=0 id=7';
const LISTED =
  'udp      17 29 src=fd00:9::10 dst=fd00:9::11 sport=42281 dport=53 src=fd68:6170:6f72:7473:1:: dst=fd00:9::10 sport=61000 dport=5436 [ASSURED] mark=0 use=1 id=565094070';

const ORIGIN = {
  id: 2_286_605_049,
  receiver: '240.1.0.0',
  seenAddress: '10.1.0.2',
  seenPort: 19_369,
  source: '10.1.0.2',
  sourcePort: 44_865,
  destination: '10.9.0.10',
  destinationPort: 55,
};

describe('ConntrackLines', () => {
  test('parse() reads events', () => {
    const lines = new ConntrackLines();
    assert.deepEqual(lines.parse(NEW), { ...ORIGIN, remainingMs: 30_000 });
    assert.deepEqual(lines.parse(DESTROY), { ...ORIGIN, remainingMs: 29_000 });
  });

  test('parse() reads lines with counters and without the time left', () => {
    assert.deepEqual(new ConntrackLines().parse(EXPIRED), { ...ORIGIN, id: 7, remainingMs: 0 });
  });

  test('parse() reads listed entries, and IPv6', () => {
    assert.deepEqual(new ConntrackLines().parse(LISTED), {
      id: 565_094_070,
      receiver: 'fd68:6170:6f72:7473:1::',
      seenAddress: 'fd00:9::10',
      seenPort: 5436,
      source: 'fd00:9::10',
      sourcePort: 42_281,
      destination: 'fd00:9::11',
      destinationPort: 53,
      remainingMs: 29_000,
    });
  });

  test('parse() refuses what is cut off or something else', () => {
    const lines = new ConntrackLines();
    for (const text of ['', 'icmp 1 src=1.1.1.1 dst=2.2.2.2', NEW.slice(0, 120), NEW.replace(/ id=.*/, '')]) {
      assert.equal(lines.parse(text), undefined, text);
    }
  });
});
