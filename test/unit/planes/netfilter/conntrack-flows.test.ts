import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConntrackFlows } from '../../../../src/planes/netfilter/conntrack.js';
import type { Follower, Tool, ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';
import { FakeClock } from '../../../support/fake-clock.js';

const line = (id: number): string =>
  `tcp 6 5 ESTABLISHED src=10.1.0.2 dst=10.9.0.10 sport=1 dport=2 src=10.2.0.11 dst=10.1.0.2 sport=2 dport=1 mark=1 use=1 id=${id}`;

class FollowedTools implements Tools {
  readonly commands: string[] = [];
  readonly followers: Follower[] = [];
  stopped = 0;

  run(): Promise<ToolOutcome> {
    return Promise.resolve({ exitCode: 1, stdout: '', stderr: '' });
  }

  follow(tool: Tool, args: readonly string[], follower: Follower): () => void {
    this.commands.push([tool, ...args].join(' '));
    this.followers.push(follower);
    return () => this.stopped++;
  }
}

function setUp() {
  const [clock, tools] = [new FakeClock(), new FollowedTools()];
  return {
    clock,
    tools,
    flows: new ConntrackFlows({ clock, tools }, { value: 0x12340000, mask: 0xffff0000 }),
  };
}

describe('ConntrackFlows', () => {
  test('follow() has the kernel filter by mark, and gives what it can read', () => {
    const { tools, flows } = setUp();
    const told: string[] = [];
    const stop = flows.follow({
      onEntries: (entries) => told.push(...entries.map(({ event, id }) => `${event} ${id}`)),
      onGap: () => told.push('gap'),
    });
    assert.deepEqual(tools.commands, [
      'conntrack -E --mark 0x12340000/0xffff0000 -o id -e NEW,DESTROY -b 8388608',
    ]);
    const [run] = tools.followers;
    run?.onComplaint('NOTICE: Netlink socket buffer size has been set to 16777216 bytes.');
    run?.onLines([`[NEW] ${line(1)}`, 'nonsense', `[DESTROY] ${line(1)}`]);
    assert.deepEqual(told, ['gap', 'new 1', 'gone 1']);
    stop();
    assert.equal(tools.stopped, 1);
  });

  test('list() asks for both families, one after the other', async () => {
    const { tools, flows } = setUp();
    const ids: number[] = [];
    const listed = flows.list((entries) => ids.push(...entries.map(({ id }) => id)));
    tools.followers[0]?.onLines([line(1), line(2)]);
    tools.followers[0]?.onLines([line(3)]);
    assert.equal(tools.followers.length, 1);
    tools.followers[0]?.onEnd('exit code 0');
    await Promise.resolve();
    tools.followers[1]?.onLines([line(4)]);
    tools.followers[1]?.onEnd('exit code 0');
    assert.equal(await listed, true);
    assert.deepEqual(ids, [1, 2, 3, 4]);
    assert.deepEqual(tools.commands, [
      'conntrack -L -f ipv4 --mark 0x12340000/0xffff0000 -o id',
      'conntrack -L -f ipv6 --mark 0x12340000/0xffff0000 -o id',
    ]);
  });

  test('list() is false where conntrack fails, or does not end', async () => {
    const { clock, tools, flows } = setUp();
    const failed = flows.list(() => undefined);
    tools.followers[0]?.onEnd('ENOENT');
    assert.equal(await failed, false);
    const stuck = flows.list(() => undefined);
    clock.advance(10_000);
    assert.equal(await stuck, false);
    assert.equal(tools.stopped, 1);
  });
});
