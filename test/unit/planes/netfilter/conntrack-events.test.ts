import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConntrackEvents } from '../../../../src/planes/netfilter/conntrack.js';
import type { Follower, Tool, ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';
import { FakeClock } from '../../../support/fake-clock.js';

const LINE = (port: number): string =>
  `udp 17 30 src=10.1.0.2 dst=10.9.0.10 sport=1 dport=${port} src=240.1.0.0 dst=10.1.0.2 sport=61000 dport=1 id=5`;

class FakeTools implements Tools {
  readonly followers: Follower[] = [];
  readonly commands: string[] = [];
  stopped = 0;
  outcome: Partial<ToolOutcome> = {};

  run(tool: Tool, args: readonly string[]): Promise<ToolOutcome> {
    this.commands.push([tool, ...args].join(' '));
    const stdout = args.includes('ipv4') ? `${LINE(53)}\n` : '';
    return Promise.resolve({ exitCode: 0, stdout, stderr: '', ...this.outcome });
  }

  follow(tool: Tool, args: readonly string[], follower: Follower): () => void {
    this.commands.push([tool, ...args].join(' '));
    this.followers.push(follower);
    return () => this.stopped++;
  }
}

function setUp() {
  const [clock, tools] = [new FakeClock(), new FakeTools()];
  const told: string[] = [];
  const stop = new ConntrackEvents({ clock, tools }).follow(61_000, {
    onNew: ({ destinationPort }) => told.push(`new ${destinationPort}`),
    onGone: ({ destinationPort }) => told.push(`gone ${destinationPort}`),
    onGap: () => told.push('gap'),
  });
  const latest = (): Follower => {
    const follower = tools.followers.at(-1);
    assert.ok(follower);
    return follower;
  };
  return { clock, tools, told, stop, latest };
}

describe('ConntrackEvents', () => {
  test('follow() tells of entries that come and go', () => {
    const { tools, told, latest } = setUp();
    latest().onLines([`    [NEW] ${LINE(53)}`, `[DESTROY] ${LINE(53)}`, 'nonsense', ` [UPDATE] ${LINE(53)}`]);
    assert.deepEqual(told, ['new 53', 'gone 53']);
    assert.deepEqual(tools.commands, [
      'conntrack -E -p udp --reply-port-src 61000 -o id -e NEW,DESTROY -b 8388608',
    ]);
  });

  test('follow() tells of a gap once events have begun to come, and when some were lost', () => {
    const { clock, told, latest } = setUp();
    latest().onComplaint('NOTICE: Netlink socket buffer size has been set to 16777216 bytes.');
    clock.advance(1000);
    assert.deepEqual(told, ['gap']);
    latest().onComplaint('WARNING: We have hit ENOBUFS! We are losing events.');
    assert.deepEqual(told, ['gap', 'gap']);
  });

  test('follow() tells of a gap where conntrack does not say that events come', () => {
    const { clock, told } = setUp();
    clock.advance(3000);
    assert.deepEqual(told, ['gap']);
  });

  test('follow() begins again when it ends, later each time, and at once after a good run', () => {
    const { clock, tools, told, latest } = setUp();
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

  test('follow() ends for good when it is told to', () => {
    const { clock, tools, told, stop, latest } = setUp();
    stop();
    assert.equal(tools.stopped, 1);
    latest().onEnd('signal SIGKILL');
    latest().onLines([`[NEW] ${LINE(53)}`]);
    clock.advance(20_000);
    assert.deepEqual([tools.followers.length, told], [1, []]);
  });

  test('list() asks for both families, and knows nothing where one fails', async () => {
    const tools = new FakeTools();
    const events = new ConntrackEvents({ clock: new FakeClock(), tools });
    assert.deepEqual(
      (await events.list(61_000))?.map(({ destinationPort }) => destinationPort),
      [53],
    );
    assert.deepEqual(tools.commands, [
      'conntrack -L -f ipv4 -p udp --reply-port-src 61000 -o id',
      'conntrack -L -f ipv6 -p udp --reply-port-src 61000 -o id',
    ]);
    tools.outcome = { exitCode: 1 };
    assert.equal(await events.list(61_000), undefined);
  });
});
