import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { captureAddress, captureSlots } from '../../src/model/capture.js';
import { reachedBy, type AskedFlow, type FlowAnswer } from '../support/capture-flows.js';
import { eventually, within } from '../support/deadline.js';
import { NamespaceLab, whyNoNamespaces } from '../support/namespaces.js';

/*
 *   c (10.61.1.2, fd00:61:1::2) -- lb (frontends 10.61.0.9, fd00:61::9; backends 127.0.0.11, ::1)
 */

const SUPPORT = join(import.meta.dirname, '..', 'support');
const CLIENT = { 4: '10.61.1.2', 6: 'fd00:61:1::2' } as const;
const FRONTEND = { 4: '10.61.0.9', 6: 'fd00:61::9' } as const;
const BACKEND = { 4: '127.0.0.11', 6: '::1' } as const;
const PORT = { 4: 61_000, 6: 61_001 } as const;
/** An event of conntrack takes less, on a busy machine too. */
const EVENT_MS = 600;

const PORTS = Array.from({ length: 1000 }, (_, n) => 100 + n * 31);

interface Told {
  readonly drops: Readonly<Record<string, number>>;
  readonly flows: number;
}

const skip = whyNoNamespaces();

describe('captured UDP', { skip }, () => {
  let lab: NamespaceLab;
  const planes = new Map<4 | 6, { readonly child: ChildProcess; readonly lines: Interface }>();

  before(async () => {
    lab = await NamespaceLab.create('c', 'lb');
    await lab.link(
      { in: 'c', addresses: ['10.61.1.2/24', 'fd00:61:1::2/64'] },
      { in: 'lb', addresses: ['10.61.1.1/24', 'fd00:61:1::1/64'] },
    );
    await lab.ip('c', 'route add 10.61.0.0/24 via 10.61.1.1');
    await lab.ip('c', 'route add fd00:61::/64 via fd00:61:1::1');
    await lab.address('lb', 'lo', `${FRONTEND[4]}/32`, `${FRONTEND[6]}/128`);
    await capture(lab);
    const echo = lab.spawn('lb', process.execPath, [join(SUPPORT, 'capture-echo-main.js')]);
    echo.stdin?.end(JSON.stringify({ addresses: Object.values(BACKEND), ports: PORTS }));
    await ready(echo);
    for (const family of [4, 6] as const) {
      const args = [FRONTEND[family], BACKEND[family], `${PORT[family]}`];
      const child = lab.spawn('lb', process.execPath, [join(SUPPORT, 'capture-udp-main.js'), ...args]);
      planes.set(family, { child, lines: await ready(child) });
    }
  });

  after(() => lab.close());

  async function ask(from: 'c' | 'lb', flows: readonly AskedFlow[], concurrency = 200): Promise<void> {
    const { stdout } = await lab.run(from, process.execPath, [join(SUPPORT, 'capture-client-main.js')], {
      input: JSON.stringify({ flows, concurrency, timeoutMs: 5000 }),
      timeoutMs: 60_000,
    });
    const answers = JSON.parse(stdout) as FlowAnswer[];
    const wrong = flows.flatMap((flow, index) => {
      const answer = answers[index];
      const isFromThere =
        answer !== undefined && 'from' in answer && answer.from === `${flow.destination} ${flow.port}`;
      return isFromThere && reachedBy(answer)?.port === flow.port ? [] : { flow, answer };
    });
    assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${flows.length} wrong or lost`);
  }

  async function tell(family: 4 | 6): Promise<Told> {
    const plane = planes.get(family);
    assert.ok(plane);
    const line = once(plane.lines, 'line');
    plane.child.stdin?.write('\n');
    const [text] = (await within(line, 5000, 'the counters')) as [string];
    return JSON.parse(text) as Told;
  }

  /** Process ids of the children that follow events. */
  async function followers(): Promise<readonly number[]> {
    const { stdout } = await lab.run('lb', 'ip', ['netns', 'pids', lab.full('lb')]);
    const pids = stdout.split('\n').map(Number);
    return pids.filter((pid) => pid > 1 && commandOf(pid).startsWith('conntrack\0-E'));
  }

  async function following(): Promise<void> {
    await eventually(async () => (await followers()).length === 2, 5000, 'both to follow events');
    // They tell of events from a few milliseconds after their start.
    await sleep(EVENT_MS);
  }

  async function killFollowers(): Promise<void> {
    for (const pid of await followers()) process.kill(pid, 'SIGKILL');
  }

  for (const family of [4, 6] as const) {
    const [source, destination] = [CLIENT[family], FRONTEND[family]];
    const flowTo = (port: number, sourcePort: number): AskedFlow => {
      return { protocol: 'udp', source, sourcePort, destination, port };
    };

    test(`IPv${family}: 1,000 ports of one client reach their ports`, async () => {
      await ask(
        'c',
        PORTS.map((port, n) => flowTo(port, 20_000 + n)),
      );
      assert.deepEqual((await tell(family)).drops, {});
    });

    test(`IPv${family}: 300 ports from the same client port stay apart`, async () => {
      await ask(
        'c',
        PORTS.slice(0, 300).map((port) => flowTo(port, 33_333)),
      );
      assert.deepEqual((await tell(family)).drops, {});
    });

    test(`IPv${family}: clients on the same machine reach their ports`, async () => {
      const local = PORTS.slice(0, 50).map((port) => ({ ...flowTo(port, 33_334), source: destination }));
      await ask('lb', local);
    });

    test(`IPv${family}: datagrams of all sizes pass whole`, async (t) => {
      const args = [join(SUPPORT, 'capture-udp-client-main.js'), destination, '200'];
      const stdout = await lab.must('c', process.execPath, args, { timeoutMs: 30_000 });
      const { wrong, firstMs, laterMs } = JSON.parse(stdout) as Record<string, number[]>;
      assert.deepEqual(wrong, []);
      t.diagnostic(`first ${quantiles(firstMs ?? [])}, later ${quantiles(laterMs ?? [])}`);
    });

    test(`IPv${family}: flows go on and new ones come when the events end`, async () => {
      assert.equal((await followers()).length, 2);
      await killFollowers();
      await ask(
        'c',
        PORTS.slice(0, 100).map((port, n) => flowTo(port, 20_000 + n)),
      );
      for (let n = 0; n < 4; n++) {
        await killFollowers();
        await ask(
          'c',
          PORTS.slice(0, 50).map((port) => flowTo(port, 40_000 + n)),
        );
      }
      assert.deepEqual((await tell(family)).drops, {});
    });

    test(`IPv${family}: a client port that is used for another port again is a new flow`, async () => {
      await following();
      await ask('c', [flowTo(PORTS[0] ?? 0, 50_000)]);
      const name = family === 4 ? 'ipv4' : 'ipv6';
      for (const port of PORTS.slice(1, 4)) {
        await lab.run('lb', 'conntrack', ['-D', '-f', name, '-p', 'udp', '--orig-port-src', '50000']);
        // As long as an event takes, and more.
        await sleep(EVENT_MS);
        await ask('c', [flowTo(port, 50_000)]);
      }
      // The same flow again after its entry has gone: it goes on, and is no second one.
      await eventually(async () => (await tell(family)).flows > 0, 5000, 'flows');
      const { flows } = await tell(family);
      await lab.run('lb', 'conntrack', ['-D', '-f', name, '-p', 'udp', '--orig-port-src', '50000']);
      await sleep(EVENT_MS);
      await ask('c', [flowTo(PORTS[3] ?? 0, 50_000)]);
      assert.equal((await tell(family)).flows, flows);
    });
  }
});

/** Two frontends, one of each family, each to its own plane. */
async function capture(lab: NamespaceLab): Promise<void> {
  const block = parseCidr('240.0.0.0/4');
  assert.ok(block);
  const steps: string[] = [];
  for (const family of [4, 6] as const) {
    const address = ipAddress(FRONTEND[family]);
    const slot = captureSlots([address], block).get(address.text) ?? -1;
    const { text } = captureAddress(family, slot, 0, block);
    if (family === 4) await lab.ip('lb', `route add local ${text}/16 dev lo`);
    else await lab.address('lb', 'lo', `${text}/128`);
    const target = family === 4 ? text : `[${text}]`;
    const ip = family === 4 ? 'ip' : 'ip6';
    steps.push(`${ip} daddr ${address.text} meta l4proto udp dnat ${ip} to ${target}:${PORT[family]}`);
  }
  await lab.nft(
    'lb',
    `table inet haports {
      chain steer {
        ${steps.join('\n')}
      }
      chain prerouting { type nat hook prerouting priority dstnat - 5; jump steer; }
      chain output { type nat hook output priority -105; jump steer; }
    }
    `,
  );
}

async function ready(child: ChildProcess): Promise<Interface> {
  assert.ok(child.stdout);
  child.stderr?.pipe(process.stderr);
  const lines = createInterface({ input: child.stdout });
  await within(once(lines, 'line'), 15_000, 'the process to be ready');
  return lines;
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

function quantiles(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.floor(sorted.length * share)] ?? NaN).toFixed(2);
  return `median ${at(0.5)} ms, 99 % ${at(0.99)} ms`;
}
