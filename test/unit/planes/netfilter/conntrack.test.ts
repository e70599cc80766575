import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  Conntrack,
  conntrackOrigins,
  forgetFlows,
  markFilter,
  parseConntrackEntry,
} from '../../../../src/planes/netfilter/conntrack.js';
import type { FlowOrigin } from '../../../../src/model/flow.js';
import type { Follower, Tool, ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { GoldenFolder } from '../../../support/golden.js';

test('parseConntrackEntry() reads lines as conntrack 1.4.7 writes them, and takes nothing else for an entry', () => {
  const golden = new GoldenFolder('test/unit/planes/netfilter', 'txt');
  const lines = golden.input('conntrack-lines') as readonly (readonly [what: string, line: string])[];
  const texts = lines.map(([what, line]) => {
    const { original, reply, ...entry } = parseConntrackEntry(line) ?? {};
    const parts = [entry, original, reply].map((part) => JSON.stringify(part));
    return `${what}\n  ${original === undefined ? 'no entry' : parts.join('\n  ')}\n`;
  });
  golden.compare('conntrack-lines', texts.join('\n'));
});

const READY = 'NOTICE: Netlink socket buffer size has been set to 16777216 bytes.';
const LOST = 'WARNING: We have hit ENOBUFS! We are losing events.';

const line = (id: number): string =>
  `tcp 6 5 ESTABLISHED src=10.1.0.2 dst=10.9.0.10 sport=1 dport=2 src=10.2.0.11 dst=10.1.0.2 sport=2 dport=1 mark=1 use=1 id=${id}`;

class FollowedTools implements Tools {
  readonly commands: string[] = [];
  readonly followers: Follower[] = [];
  stopped = 0;
  outcome: Partial<ToolOutcome> = {};

  run(tool: Tool, args: readonly string[]): Promise<ToolOutcome> {
    this.commands.push([tool, ...args].join(' '));
    return Promise.resolve({ exitCode: 0, stdout: '', stderr: '', ...this.outcome });
  }

  follow(tool: Tool, args: readonly string[], follower: Follower): () => void {
    this.commands.push([tool, ...args].join(' '));
    this.followers.push(follower);
    return () => this.stopped++;
  }
}

function setUp() {
  const [clock, tools] = [new FakeClock(), new FollowedTools()];
  const latest = (): Follower => tools.followers.at(-1) ?? assert.fail();
  return { clock, tools, conntrack: new Conntrack({ clock, tools }), latest };
}

const FILTER = markFilter(0x12340000, 0xffff0000);

describe('Conntrack.follow()', () => {
  function followed() {
    const lab = setUp();
    const told: string[] = [];
    const stop = lab.conntrack.follow(FILTER, {
      onEntries: (entries) => told.push(...entries.map(({ event, id }) => `${event} ${id}`)),
      onGap: () => told.push('gap'),
    });
    return { ...lab, told, stop };
  }

  test('has the kernel filter, and gives what it can read', () => {
    const { tools, told, latest, stop } = followed();
    assert.deepEqual(tools.commands, [
      'conntrack -E --mark 0x12340000/0xffff0000 -o id -e NEW,DESTROY -b 8388608',
    ]);
    latest().onComplaint(READY);
    latest().onLines([`[NEW] ${line(1)}`, 'nonsense', `[DESTROY] ${line(1)}`]);
    assert.deepEqual(told, ['gap', 'new 1', 'gone 1']);
    stop();
    assert.equal(tools.stopped, 1);
  });

  test('tells of a gap once events have begun to come, and when some were lost', () => {
    const { clock, told, latest } = followed();
    latest().onComplaint(READY);
    clock.advance(1000);
    assert.deepEqual(told, ['gap']);
    latest().onComplaint(LOST);
    assert.deepEqual(told, ['gap', 'gap']);
  });

  test('tells of a gap where conntrack does not say that events come', () => {
    const { clock, told } = followed();
    clock.advance(3000);
    assert.deepEqual(told, ['gap']);
  });

  test('begins again when it ends, later each time, and at once after a good run', () => {
    const { clock, tools, told, latest } = followed();
    latest().onEnd('signal SIGKILL');
    clock.advance(100);
    assert.equal(tools.followers.length, 2);
    latest().onEnd('exit code 1');
    clock.advance(100);
    assert.equal(tools.followers.length, 2);
    clock.advance(100);
    assert.equal(tools.followers.length, 3);
    assert.deepEqual(told, []);
    clock.advance(5000);
    assert.deepEqual(told, ['gap']);
    latest().onEnd('exit code 1');
    clock.advance(100);
    assert.equal(tools.followers.length, 4);
  });

  test('ends for good when it is told to', () => {
    const { clock, tools, told, stop, latest } = followed();
    stop();
    assert.equal(tools.stopped, 1);
    latest().onEnd('signal SIGKILL');
    latest().onLines([`[NEW] ${line(1)}`]);
    clock.advance(20_000);
    assert.deepEqual([tools.followers.length, told], [1, []]);
  });
});

describe('Conntrack.list()', () => {
  test('asks for both families, one after the other, or for that of the filter', async () => {
    const { tools, conntrack, latest } = setUp();
    const ids: number[] = [];
    const listed = conntrack.list(FILTER, (entries) => ids.push(...entries.map(({ id }) => id)));
    latest().onLines([line(1), line(2)]);
    latest().onLines([line(3)]);
    assert.equal(tools.followers.length, 1);
    latest().onEnd('exit code 0');
    await Promise.resolve();
    latest().onLines([line(4)]);
    latest().onEnd('exit code 0');
    assert.equal(await listed, undefined);
    assert.deepEqual(ids, [1, 2, 3, 4]);
    void conntrack.list(['-f', 'ipv6', ...FILTER], () => undefined);
    assert.deepEqual(tools.commands, [
      'conntrack -L -f ipv4 --mark 0x12340000/0xffff0000 -o id',
      'conntrack -L -f ipv6 --mark 0x12340000/0xffff0000 -o id',
      'conntrack -L -f ipv6 --mark 0x12340000/0xffff0000 -o id',
    ]);
  });

  test('gives the failure where conntrack fails, or does not end', async () => {
    const { clock, tools, conntrack, latest } = setUp();
    const missing = conntrack.list(FILTER, () => undefined);
    latest().onEnd('ENOENT');
    assert.equal((await missing)?.code, 'LB_KERNEL_TOOL_MISSING');
    const denied = conntrack.list(FILTER, () => undefined);
    latest().onComplaint('conntrack v1.4.7 (conntrack-tools): Operation failed: Operation not permitted');
    latest().onEnd('exit code 1');
    assert.equal((await denied)?.code, 'LB_KERNEL_DENIED');
    const stuck = conntrack.list(FILTER, () => undefined);
    clock.advance(10_000);
    assert.match((await stuck)?.message ?? '', /timeout/);
    assert.equal(tools.stopped, 1);
  });
});

test('forgetFlows() takes it for no failure that there was nothing', async () => {
  const { tools } = setUp();
  assert.equal(await forgetFlows(tools, [FILTER]), undefined);
  tools.outcome = { exitCode: 1, stderr: 'conntrack v1.4.7: 0 flow entries have been deleted.' };
  assert.equal(await forgetFlows(tools, [FILTER]), undefined);
  tools.outcome = { exitCode: 1, stderr: 'conntrack: Operation failed' };
  assert.match((await forgetFlows(tools, [FILTER, FILTER]))?.message ?? '', /Operation failed/);
  assert.equal(tools.commands.length, 4);
  assert.deepEqual([...new Set(tools.commands)], ['conntrack -D --mark 0x12340000/0xffff0000']);
});

describe('conntrackOrigins()', () => {
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

  test('follow() tells of entries that come and go', () => {
    const { tools, conntrack, latest } = setUp();
    const told: [string, FlowOrigin?][] = [];
    conntrackOrigins(conntrack).follow(61_000, {
      onNew: (origin) => told.push(['new', origin]),
      onGone: (origin) => told.push(['gone', origin]),
      onGap: () => told.push(['gap']),
    });
    assert.deepEqual(tools.commands, [
      'conntrack -E -p udp --reply-port-src 61000 -o id -e NEW,DESTROY -b 8388608',
    ]);
    const cut = [NEW.slice(0, 120), NEW.replace(/ id=.*/, ''), NEW.replace('NEW', 'UPDATE'), 'nonsense'];
    latest().onLines([NEW, DESTROY, EXPIRED, ...cut]);
    latest().onComplaint(LOST);
    assert.deepEqual(told, [
      ['new', { ...ORIGIN, remainingMs: 30_000 }],
      ['gone', { ...ORIGIN, remainingMs: 29_000 }],
      ['gone', { ...ORIGIN, id: 7, remainingMs: 0 }],
      ['gap'],
    ]);
  });

  test('list() reads both families, and knows nothing where one fails', async () => {
    const { tools, conntrack, latest } = setUp();
    const origins = conntrackOrigins(conntrack);
    const listed = origins.list(61_000);
    latest().onEnd('exit code 0');
    await Promise.resolve();
    latest().onLines([LISTED]);
    latest().onEnd('exit code 0');
    assert.deepEqual(await listed, [
      {
        id: 565_094_070,
        receiver: 'fd68:6170:6f72:7473:1::',
        seenAddress: 'fd00:9::10',
        seenPort: 5436,
        source: 'fd00:9::10',
        sourcePort: 42_281,
        destination: 'fd00:9::11',
        destinationPort: 53,
        remainingMs: 29_000,
      },
    ]);
    assert.deepEqual(tools.commands, [
      'conntrack -L -f ipv4 -p udp --reply-port-src 61000 -o id',
      'conntrack -L -f ipv6 -p udp --reply-port-src 61000 -o id',
    ]);
    const failed = origins.list(61_000);
    latest().onEnd('exit code 1');
    assert.equal(await failed, undefined);
  });
});
