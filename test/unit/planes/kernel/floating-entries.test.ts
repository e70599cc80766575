import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FloatingEntries } from '../../../../src/planes/kernel/ebpf/floating-flows.js';
import type { ConntrackEntry } from '../../../../src/planes/netfilter/conntrack.js';
import { compileProgram } from '../../../../src/planes/kernel/program.js';
import type { KernelOptions } from '../../../../src/model/configuration.js';
import type { Tool, ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';

const states = await KernelStates.create();

/** As nft 1.0.6 lists such a set. */
const LISTING = `table inet haports {
	set flows-hub {
		type ipv4_addr . inet_proto . inet_service . inet_service . mark
		size 262144
		flags dynamic,timeout
		timeout 4m
		elements = { 10.1.0.2 . tcp . 40000 . 443 . 0x00a10001 timeout 4m expires 3m59s990ms counter packets 3 bytes 180,
			     10.1.0.3 . udp . 40001 . 53 . 0x00a10002 timeout 30s expires 10s counter packets 1 bytes 29,
			     10.1.0.2 . tcp . 40000 . 443 . 0x00a10003 timeout 4m expires 3m20s counter packets 9 bytes 900 }
	}
}
`;

const RAW = oneRule();

class ListingTools implements Tools {
  readonly commands: string[] = [];
  exitCode = 0;

  run(tool: Tool, args: readonly string[]): Promise<ToolOutcome> {
    this.commands.push([tool, ...args].join(' '));
    return Promise.resolve({ exitCode: this.exitCode, stdout: LISTING, stderr: '' });
  }

  follow(): () => void {
    throw new Error('Nothing is followed here');
  }
}

function setUp(options: Partial<KernelOptions>) {
  const tools = new ListingTools();
  const state = states.state(RAW, options);
  const entries = new FloatingEntries(tools, () => compileProgram(state));
  const listed: ConntrackEntry[] = [];
  return { tools, listed, list: () => entries.list((some) => listed.push(...some)) };
}

describe('FloatingEntries', () => {
  test('list() reads the flows that packets wrote down, each once', async () => {
    const { tools, listed, list } = setUp({ mode: 'floating-routed' });
    assert.equal(await list(), true);
    assert.deepEqual(tools.commands, ['nft list set inet haports flows-hub']);
    assert.deepEqual(
      listed.map(({ protocol, original, mark, idleMs }) => [protocol, original, mark, idleMs]),
      [
        [
          6,
          {
            ...{ source: '10.1.0.2', sourcePort: 40_000, destination: '10.9.0.10', destinationPort: 443 },
            ...{ packets: 3, bytes: 180 },
          },
          // The one that was moved from has not had a packet for longer.
          0xa10001,
          10,
        ],
        [
          17,
          {
            ...{ source: '10.1.0.3', sourcePort: 40_001, destination: '10.9.0.10', destinationPort: 53 },
            ...{ packets: 1, bytes: 29 },
          },
          0xa10002,
          20_000,
        ],
      ],
    );
    assert.notEqual(listed[0]?.id, listed[1]?.id);
    const before = listed.map(({ id }) => id);
    await list();
    assert.deepEqual(
      listed.slice(2).map(({ id }) => id),
      before,
    );
  });

  test('list() asks for the table at the ingress where that is the mode', async () => {
    const { tools, list } = setUp({ mode: 'floating-l2', interface: 'eth0' });
    await list();
    assert.deepEqual(tools.commands, ['nft list set netdev haports flows-hub']);
  });

  test('list() asks for the table of its own instance, whatever its name', async () => {
    const tools = new ListingTools();
    const program = { ...compileProgram(states.state(RAW, { mode: 'floating-routed' })), instance: 'edge' };
    await new FloatingEntries(tools, () => program).list(() => undefined);
    assert.deepEqual(tools.commands, ['nft list set inet haports-edge flows-hub']);
  });

  test('list() finds none without flow state, and fails as nft does', async () => {
    const stateless = setUp({ mode: 'floating-routed', flowState: 'stateless' });
    assert.deepEqual([await stateless.list(), stateless.listed, stateless.tools.commands], [true, [], []]);
    const failing = setUp({ mode: 'floating-routed' });
    failing.tools.exitCode = 1;
    assert.deepEqual([await failing.list(), failing.listed], [false, []]);
  });
});
