import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { captureAddress, captureSlots } from '../../src/model/capture.js';
import { randomPorts, reachedBy, type AskedFlow, type FlowAnswer } from '../support/capture-flows.js';
import type { TcpPlaneOptions } from '../support/capture-tcp-main.js';
import { eventually, within } from '../support/deadline.js';
import { NamespaceLab, whyNoNamespaces } from '../support/namespaces.js';

/*
 *   c (10.62.1.2, fd00:62:1::2) -- lb (frontends 10.62.0.9, fd00:62::9) -- nva (backend 10.62.2.2)
 *
 * The ruleset is written by hand here: what haports itself writes is proved by capture-ports.test.ts.
 */

const SUPPORT = join(import.meta.dirname, '..', 'support');
const CLIENT = { 4: '10.62.1.2', 6: 'fd00:62:1::2' } as const;
const FRONTEND = { 4: '10.62.0.9', 6: 'fd00:62::9' } as const;
const BACKEND = '10.62.2.2';
const PORT = 61_000;
const PORTS = randomPorts(300, { always: [1, 22, 61_000, 65_535], never: [] });

interface Told {
  readonly drops: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly workersLost: number;
  readonly flows: number;
}

describe('captured TCP', { skip: whyNoNamespaces() }, () => {
  let lab: NamespaceLab;

  before(async () => {
    lab = await NamespaceLab.create('c', 'lb', 'nva');
    await lab.link(
      { in: 'c', addresses: ['10.62.1.2/24', 'fd00:62:1::2/64'] },
      { in: 'lb', addresses: ['10.62.1.1/24', 'fd00:62:1::1/64'] },
    );
    await lab.link({ in: 'nva', addresses: ['10.62.2.2/24'] }, { in: 'lb', addresses: ['10.62.2.1/24'] });
    await lab.ip('c', 'route add 10.62.0.0/24 via 10.62.1.1');
    await lab.ip('c', 'route add fd00:62::/64 via fd00:62:1::1');
    await lab.address('lb', 'lo', `${FRONTEND[4]}/32`, `${FRONTEND[6]}/128`);
    await lab.ip('lb', 'rule add fwmark 0x64 lookup 500');
    await lab.ip('lb', '-6 rule add fwmark 0x64 lookup 500');
    await lab.ip('lb', 'route add local default dev lo table 500');
    await lab.ip('lb', '-6 route add local default dev lo table 500');
    const echo = lab.spawn('nva', process.execPath, [join(SUPPORT, 'capture-echo-main.js')]);
    echo.stdin?.end(JSON.stringify({ addresses: [BACKEND], ports: PORTS }));
    await ready(echo);
  });

  after(() => lab.close());

  /** All ports of both families, once each; both wrong and lost ones fail. */
  async function askAll(from: 'c' | 'lb'): Promise<void> {
    const flows = ([4, 6] as const).flatMap((family) =>
      PORTS.map((port, n): AskedFlow => {
        const source = from === 'c' ? CLIENT[family] : FRONTEND[family];
        return { protocol: 'tcp', source, sourcePort: 20_000 + n, destination: FRONTEND[family], port };
      }),
    );
    const { stdout } = await lab.run(from, process.execPath, [join(SUPPORT, 'capture-client-main.js')], {
      input: JSON.stringify({ flows, concurrency: 50, timeoutMs: 5000 }),
      timeoutMs: 60_000,
    });
    const answers = JSON.parse(stdout) as FlowAnswer[];
    const wrong = flows.filter((flow, index) => reachedBy(answers[index])?.port !== flow.port);
    const first = wrong.slice(0, 3).map((flow) => [flow, answers[flows.indexOf(flow)]]);
    assert.deepEqual(first, [], `${wrong.length} of ${flows.length} wrong or lost`);
  }

  /** What becomes of a connection: `data`, or why not. */
  async function knock(from: 'c' | 'lb', host: string, port: number): Promise<string> {
    const script = `const s = require('net').connect(${port}, '${host}');
      s.on('error', (e) => { console.log(e.code); process.exit(); }); s.on('end', () => console.log('end'));
      s.on('data', () => { console.log('data'); process.exit(); }); s.on('connect', () => s.write('x'));`;
    return (await lab.must(from, process.execPath, ['-e', script], { timeoutMs: 10_000 })).trim();
  }

  async function serve(workers: number): Promise<ServedPlane> {
    await lab.nft('lb', await ruleset(lab));
    const options: TcpPlaneOptions = {
      ...{ workers, port: PORT, backend: BACKEND },
      frontends: Object.values(FRONTEND),
    };
    const main = [process.execPath, join(SUPPORT, 'capture-tcp-main.js'), JSON.stringify(options)];
    const child = lab.spawn('lb', main[0] ?? '', main.slice(1));
    return new ServedPlane(child, await ready(child));
  }

  for (const workers of [0, 1, 2]) {
    test(`${workers} workers: every port over IPv4 and IPv6 reaches its port`, async () => {
      const plane = await serve(workers);
      try {
        await askAll('c');
        await askAll('lb');
        const { drops } = await plane.tell();
        assert.deepEqual(drops, { [FRONTEND[4]]: {}, [FRONTEND[6]]: {} });
        for (const family of [4, 6] as const) {
          // Past the steering, from this machine itself: 127.0.0.1 is nobody's frontend.
          const host = family === 4 ? '127.0.0.1' : '::1';
          assert.equal(await knock('lb', host, PORT), 'ECONNRESET');
        }
        const { drops: dropsAfter } = await plane.tell();
        assert.equal(sum(dropsAfter), 2);
        if (workers === 0) return;
        const { workersLost } = await plane.tell('kill');
        assert.equal(workersLost, 1);
        if (workers === 1) {
          // Its socket died with it.
          const served = async (): Promise<boolean> => (await knock('c', FRONTEND[4], 1)) === 'data';
          await eventually(served, 10_000, 'the next worker');
        }
        await askAll('c');
      } finally {
        await plane.end();
      }
    });
  }
});

class ServedPlane {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    this.#lines = lines;
  }

  async tell(command = ''): Promise<Told> {
    const line = once(this.#lines, 'line');
    this.#child.stdin?.write(`${command}\n`);
    const [text] = (await within(line, 10_000, 'the counters')) as [string];
    return JSON.parse(text) as Told;
  }

  async end(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.stdin?.end();
    await within(gone, 10_000, 'the plane to end');
  }
}

function sum(drops: Told['drops']): number {
  return Object.values(drops).reduce((total, of) => total + (of['unknown-origin'] ?? 0), 0);
}

/** In place of the one before. */
async function ruleset(lab: NamespaceLab): Promise<string> {
  const block = parseCidr('240.0.0.0/4');
  assert.ok(block);
  const slots = captureSlots(Object.values(FRONTEND).map(ipAddress), block);
  const maps: string[] = [];
  const steer: string[] = [];
  for (const family of [4, 6] as const) {
    const slot = slots.get(FRONTEND[family]) ?? -1;
    const ip = family === 4 ? 'ip' : 'ip6';
    const elements = PORTS.map((port) => `${port} : ${captureAddress(family, slot, port, block).text}`);
    maps.push(`map hub${family} {
      type inet_service : ipv${family}_addr
      elements = { ${elements.join(', ')} }
    }`);
    const zero = captureAddress(family, slot, 0, block).text;
    await lab.ip('lb', `route replace local ${zero}/${family === 4 ? 16 : 80} dev lo`);
    steer.push(`${ip} daddr ${FRONTEND[family]} dnat ${ip} to tcp dport map @hub${family} : ${PORT}`);
  }
  const hooks = `chain prerouting { type nat hook prerouting priority dstnat - 5; jump steer; }
         chain output { type nat hook output priority -105; jump steer; }`;
  const parts = [...maps, `chain steer {\n${steer.join('\n')}\n}`, hooks].join('\n');
  return `table inet trial\ndelete table inet trial\ntable inet trial {\n${parts}\n}\n`;
}

async function ready(child: ChildProcess): Promise<Interface> {
  assert.ok(child.stdout);
  child.stderr?.pipe(process.stderr);
  const lines = createInterface({ input: child.stdout });
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('It ended at once')));
  await within(Promise.race([once(lines, 'line'), ended]), 15_000, 'the process to be ready');
  ended.catch(() => undefined);
  return lines;
}
