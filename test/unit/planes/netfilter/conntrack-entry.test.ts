import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseConntrackEntry } from '../../../../src/planes/netfilter/conntrack.js';

/* Lines as conntrack 1.4.7 wrote them on kernel 6.18, with nf_conntrack_acct and nf_conntrack_timestamp. */

describe('parseConntrackEntry()', () => {
  test('reads a flow that begins', () => {
    const line =
      '    [NEW] tcp      6 120 SYN_SENT src=10.1.0.2 dst=10.9.0.10 sport=50878 dport=80 [UNREPLIED] ' +
      'src=10.2.0.11 dst=10.1.0.2 sport=8080 dport=50878 mark=305397761 id=4010227144';
    assert.deepEqual(parseConntrackEntry(line), {
      event: 'new',
      protocol: 6,
      remainingSeconds: 120,
      state: 'SYN_SENT',
      original: {
        ...{ source: '10.1.0.2', sourcePort: 50878, destination: '10.9.0.10', destinationPort: 80 },
        ...{ packets: 0, bytes: 0 },
      },
      reply: {
        ...{ source: '10.2.0.11', sourcePort: 8080, destination: '10.1.0.2', destinationPort: 50878 },
        ...{ packets: 0, bytes: 0 },
      },
      unreplied: true,
      byProgram: false,
      mark: 0x12340001,
      ageSeconds: undefined,
      id: 4010227144,
    });
  });

  test('reads what a flow carried, how it ended and how long it was', () => {
    const entry = parseConntrackEntry(
      '[DESTROY] tcp      6 TIME_WAIT src=10.1.0.2 dst=10.9.0.10 sport=50878 dport=80 packets=6 bytes=325 ' +
        'src=10.2.0.11 dst=10.1.0.2 sport=80 dport=50878 packets=4 bytes=221 [ASSURED] mark=305397761 ' +
        'delta-time=5 [start=Fri Nov 20 14:48:48 2026] [stop=Fri Nov 20 14:48:53 2026] id=4010227144',
    );
    assert.equal(entry?.event, 'gone');
    assert.equal(entry.state, 'TIME_WAIT');
    assert.equal(entry.remainingSeconds, -1);
    assert.deepEqual([entry.original.packets, entry.original.bytes], [6, 325]);
    assert.deepEqual([entry.reply.packets, entry.reply.bytes], [4, 221]);
    assert.deepEqual([entry.unreplied, entry.byProgram], [false, false]);
    assert.equal(entry.ageSeconds, 5);
    assert.equal(entry.id, 4010227144);
  });

  test('tells what a program deleted', () => {
    const entry = parseConntrackEntry(
      '[DESTROY] udp      17 27 src=10.1.0.2 dst=10.9.0.10 sport=37269 dport=53 packets=1 bytes=29 [UNREPLIED] ' +
        'src=10.2.0.12 dst=10.1.0.2 sport=53 dport=37269 packets=0 bytes=0 mark=305397762 delta-time=2 ' +
        'id=829629934 [USERSPACE] portid=3013831975',
    );
    assert.deepEqual(
      [entry?.event, entry?.protocol, entry?.byProgram, entry?.id],
      ['gone', 17, true, 829629934],
    );
    assert.equal(entry?.remainingSeconds, 27);
  });

  test('reads protocols without ports, and does not take their id for that of the entry', () => {
    const entry = parseConntrackEntry(
      'icmp     1 29 src=10.1.0.2 dst=10.9.0.10 type=8 code=0 id=5624 packets=1 bytes=84 src=10.2.0.11 ' +
        'dst=10.1.0.2 type=0 code=0 id=5624 packets=1 bytes=84 mark=305397761 delta-time=0 use=1 id=1833678818',
    );
    assert.equal(entry?.event, 'listed');
    assert.equal(entry.protocol, 1);
    assert.equal(entry.id, 1833678818);
    assert.deepEqual([entry.original.sourcePort, entry.original.bytes, entry.reply.bytes], [0, 84, 84]);
    assert.equal(
      parseConntrackEntry(
        'unknown  253 600 src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=1.1.1.1 mark=1 use=1 id=7',
      )?.protocol,
      253,
    );
  });

  test('reads IPv6, and entries that are listed without an answer', () => {
    const entry = parseConntrackEntry(
      'tcp      6 9 SYN_SENT src=fd01::2 dst=fd09::10 sport=1 dport=2 [UNREPLIED] src=fd02::11 dst=fd01::2 ' +
        'sport=2 dport=1 mark=7 use=1 id=3',
    );
    assert.equal(entry?.event, 'listed');
    assert.equal(entry.original.source, 'fd01::2');
    assert.equal(entry.reply.source, 'fd02::11');
    assert.equal(entry.unreplied, true);
    assert.equal(entry.remainingSeconds, 9);
  });

  test('tells an update from what was never answered', () => {
    const entry = parseConntrackEntry(
      ' [UPDATE] tcp 6 60 SYN_RECV src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 id=9',
    );
    assert.deepEqual([entry?.event, entry?.mark], ['updated', 0]);
  });

  test('takes nothing else for an entry', () => {
    const lines = ['', ' ', '[NEW]', 'conntrack v1.4.7 (conntrack-tools): 6 flow entries have been shown.'];
    lines.push(
      'tcp 6 5 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 id=4',
      'tcp 6 src=1.1.1.1',
      '[NEW] tcp',
    );
    for (const line of lines) assert.equal(parseConntrackEntry(line), undefined, line);
  });
});
