import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import { readChunks, readLinks, systemFiles } from '../../../../src/runtime/files.js';
import { ownSockets, portsInUse, type ReadChunks } from '../../../../src/planes/capture/ports-in-use.js';

const HEAD =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';

/** A line as the kernel writes it on a little-endian machine. */
function line(local: string, state: string, inode: number, remote = '00000000:0000'): string {
  return `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  1000        0 ${inode} 1 0 100\n`;
}

/** The files of /proc/net in pieces of so many bytes; what is missing is ENOENT. */
function proc(files: Readonly<Record<string, string>>, size = 50): ReadChunks & { read: string[] } {
  const read: string[] = [];
  const chunks = async function* (path: string): AsyncGenerator<Uint8Array> {
    const text = files[path];
    if (text === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    for (let from = 0; from < text.length; from += size) {
      read.push(path);
      yield await Promise.resolve(Buffer.from(text.slice(from, from + size)));
    }
  };
  return Object.assign(chunks, { read });
}

async function found(files: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const ports = await portsInUse(proc(files));
  return ports.map(({ protocol, address, port, inode }) => `${protocol} ${address.text} ${port} ${inode}`);
}

describe('portsInUse()', () => {
  test('gives TCP ports that are listened on, and UDP ports that take from anybody', async () => {
    assert.deepEqual(
      await found({
        '/proc/net/tcp':
          HEAD + line('0100007F:1F90', '0A', 11) + line('0100007F:1F91', '01', 12, '0100007F:0050'),
        '/proc/net/udp': HEAD + line('00000000:0035', '07', 13) + line('0500000A:0036', '01', 14),
      }),
      ['tcp 127.0.0.1 8080 11', 'udp 0.0.0.0 53 13'],
    );
  });

  test('gives IPv6 addresses, and IPv4 ones that are written as IPv6 as IPv4', async () => {
    const v6 = 'B80D0120000000000000000001000000';
    const mapped = '0000000000000000FFFF00000500000A';
    assert.deepEqual(
      await found({
        '/proc/net/tcp6':
          HEAD +
          line(`${v6}:0016`, '0A', 1, `${'0'.repeat(32)}:0000`) +
          line(`${mapped}:0017`, '0A', 2, `${'0'.repeat(32)}:0000`) +
          line(`${'0'.repeat(32)}:0018`, '0A', 3, `${'0'.repeat(32)}:0000`),
      }),
      ['tcp 2001:db8::1 22 1', 'tcp 10.0.0.5 23 2', 'tcp :: 24 3'],
    );
  });

  test('reads no connections beyond the listeners', async () => {
    const connections = line('0100007F:1F91', '01', 12, '0100007F:0050').repeat(5000);
    const chunks = proc({ '/proc/net/tcp': HEAD + line('0100007F:1F90', '0A', 11) + connections }, 4096);
    assert.equal((await portsInUse(chunks)).length, 1);
    assert.ok(chunks.read.length < 4, `read ${chunks.read.length} pieces`);
  });

  test('rejects where the kernel does not say', async () => {
    const denied = (): AsyncIterable<Uint8Array> => {
      throw Object.assign(new Error('denied'), { code: 'EACCES' });
    };
    await assert.rejects(portsInUse(denied), { code: 'EACCES' });
  });

  test('finds the sockets of this process, which ownSockets() tells from others', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    const socket = createSocket('udp6').bind(0, '::1');
    await Promise.all([once(server, 'listening'), once(socket, 'listening')]);
    try {
      const ports = await portsInUse(readChunks);
      const own = await ownSockets(
        { readText: (path) => systemFiles.readText(path), readLinks },
        process.pid,
      );
      const tcp = ports.find(
        ({ protocol, address, port }) =>
          protocol === 'tcp' &&
          address.text === '127.0.0.1' &&
          port === (server.address() as AddressInfo).port,
      );
      const udp = ports.find(
        ({ protocol, address, port }) =>
          protocol === 'udp' && address.text === '::1' && port === socket.address().port,
      );
      assert.ok(own.has(tcp?.inode ?? 'no TCP socket'), 'TCP');
      assert.ok(own.has(udp?.inode ?? 'no UDP socket'), 'UDP');
    } finally {
      server.close();
      socket.close();
    }
  });
});

describe('ownSockets()', () => {
  test('counts children, and leaves out what is no socket or cannot be read', async () => {
    const folders: Readonly<Record<string, readonly string[]>> = {
      '/proc/7/fd': ['socket:[100]', 'pipe:[101]'],
      '/proc/8/fd': ['/dev/null', 'socket:[102]'],
    };
    const files = {
      readText: (path: string) => Promise.resolve(path === '/proc/7/task/7/children' ? '8 9 ' : ''),
      readLinks: (folder: string) => {
        const links = folders[folder];
        if (links === undefined) return Promise.reject(new Error('gone'));
        return Promise.resolve(new Map(links.map((target, index) => [String(index), target])));
      },
    };
    assert.deepEqual([...(await ownSockets(files, 7))], ['100', '102']);
  });
});
