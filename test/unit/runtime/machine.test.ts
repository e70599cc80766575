import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { NetworkInterfaceInfo } from 'node:os';
import { describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ipAddress } from '../../../src/model/address.js';
import { localCandidates, residentMemory } from '../../../src/runtime/machine.js';
import { builtFile } from '../../support/commands.js';

const MODULE = pathToFileURL(builtFile('src/runtime/machine')).href;
const SCRIPT = `import { descriptorLimit } from ${JSON.stringify(MODULE)}; console.log(descriptorLimit());`;

/** What a process says that the shell started under this limit; Node raises the soft one to the hard one itself. */
function under(limit: string): string {
  const command = `ulimit -n ${limit} && exec "$0" --input-type=module -e "$1"`;
  const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, SCRIPT], { encoding: 'utf8' });
  assert.equal(stderr, '');
  return stdout.trim();
}

test('descriptorLimit() is what the shell set', () => {
  assert.equal(under('256'), '256');
  assert.equal(under('1000'), '1000');
});

function entry(cidr: string, internal = false): NetworkInterfaceInfo {
  const [address = ''] = cidr.split('/');
  const rest = { address, cidr, internal, netmask: '', mac: '' };
  return address.includes(':')
    ? { ...rest, family: 'IPv6', scopeid: address.startsWith('fe80') ? 2 : 0 }
    : { ...rest, family: 'IPv4' };
}

const INTERFACES = {
  lo: [entry('127.0.0.1/8', true), entry('::1/128', true), entry('198.51.100.9/32', true)],
  eth0: [entry('203.0.113.9/32'), entry('10.0.0.5/8'), entry('fe80::5/64'), entry('2001:db8::5/64')],
  eth1: [entry('10.1.0.5/16'), entry('192.0.2.5/24')],
};

function candidates(destination: string): readonly string[] {
  return localCandidates(ipAddress(destination), INTERFACES).map(({ text }) => text);
}

describe('localCandidates()', () => {
  test('puts the narrowest network of the destination first and addresses that stand alone last', () => {
    assert.deepEqual(candidates('10.1.2.3'), ['10.1.0.5', '10.0.0.5', '192.0.2.5', '203.0.113.9']);
    assert.deepEqual(candidates('8.8.8.8'), ['10.0.0.5', '10.1.0.5', '192.0.2.5', '203.0.113.9']);
  });

  test('takes only addresses of the family, and none that is link-local', () => {
    assert.deepEqual(candidates('2001:db8:1::1'), ['2001:db8::5']);
  });

  test('takes loopback for loopback', () => {
    assert.deepEqual(candidates('127.0.0.61'), ['127.0.0.1']);
    assert.deepEqual(candidates('::1'), ['::1']);
  });
});

function filesWith(files: Readonly<Record<string, string>>) {
  return {
    readText: (path: string) => {
      const text = files[path.replace(new RegExp(`/${process.pid}(?=/)`, 'g'), '/self')];
      return text === undefined ? Promise.reject(new Error(`ENOENT ${path}`)) : Promise.resolve(text);
    },
  };
}

describe('residentMemory()', () => {
  test('adds up this process and its children, one that has just ended for nothing', async () => {
    const files = filesWith({
      '/proc/self/task/self/children': '11 12 13 \n',
      '/proc/self/status': 'Name:\tnode\nVmRSS:\t   1000 kB\n',
      '/proc/11/status': 'VmRSS:\t 200 kB\nThreads:\t1\n',
      '/proc/12/status': 'VmRSS:\t 30 kB\n',
    });
    assert.deepEqual(await residentMemory(files), { processes: 4, bytes: 1230 * 1024 });
  });

  test('is close to what Node says of a process without children', async () => {
    const memory = await residentMemory();
    const own = process.memoryUsage.rss();
    assert.ok(
      memory !== undefined && Math.abs(memory.bytes - own) < own / 4,
      JSON.stringify({ memory, own }),
    );
  });

  test('is unknown where there is no /proc', async () => {
    assert.equal(await residentMemory(filesWith({})), undefined);
  });
});
