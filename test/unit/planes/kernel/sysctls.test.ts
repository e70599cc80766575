import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { compileProgram } from '../../../../src/planes/kernel/program.js';
import {
  neededSysctls,
  setSysctls,
  sysctlError,
  sysctlText,
  wrongSysctls,
} from '../../../../src/planes/kernel/machine.js';
import type { Tools } from '../../../../src/planes/netfilter/tools.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';

/** A machine with these settings. */
function machine(settings: Map<string, number>): Tools {
  return {
    run: (_tool, args) => {
      const lines: string[] = [];
      for (const arg of args) {
        const [key = '', value] = arg.split('=');
        if (value !== undefined) settings.set(key, Number(value));
        else if (settings.has(key)) lines.push(`${key} = ${settings.get(key)}`);
      }
      const exitCode = lines.length === args.length ? 0 : 1;
      return Promise.resolve({ exitCode, stdout: `${lines.join('\n')}\n`, stderr: '' });
    },
    follow: () => () => undefined,
  };
}

describe('sysctls of the kernel plane', () => {
  let states: KernelStates;
  before(async () => {
    states = await KernelStates.create();
  });

  const input = (backend: string) => compileProgram(states.state(oneRule({ backends: [backend] })));

  test('wrongSysctls() says what is otherwise, with the command, and what is fatal', async () => {
    const settings = new Map([
      ['net.ipv4.ip_forward', 0],
      ['net.ipv4.conf.all.send_redirects', 0],
      ['net.ipv4.conf.eth0/7.send_redirects', 1],
    ]);
    const needed = neededSysctls(input('10.2.0.11'), ['eth0.7']);
    const wrong = await wrongSysctls(machine(settings), needed);
    assert.deepEqual(
      wrong.map(({ key }) => key),
      ['net.ipv4.ip_forward', 'net.ipv4.conf.eth0/7.send_redirects'],
    );
    assert.match(sysctlText(wrong[1]!), /is 1, must be 0: .*Run: sysctl -w net\.ipv4\.conf\.eth0\/7/);
    assert.match(sysctlError(wrong)?.message ?? '', /ip_forward is 0, must be 1.*manageSysctls/);
    assert.equal(sysctlError(wrong.slice(1)), undefined);
  });

  test('setSysctls() sets them', async () => {
    const settings = new Map([['net.ipv4.ip_forward', 0]]);
    const tools = machine(settings);
    const wrong = await wrongSysctls(tools, neededSysctls(input('10.2.0.11'), []));
    assert.deepEqual(await setSysctls(tools, wrong), []);
    assert.equal(settings.get('net.ipv4.ip_forward'), 1);
  });

  test('a machine that only talks to itself forwards nothing', () => {
    const keys = neededSysctls(input('127.0.0.11'), ['eth0']).map(({ key }) => key);
    assert.ok(!keys.some((key) => key.includes('forward') || key.includes('redirects')), keys.join(' '));
  });
});
