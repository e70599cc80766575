import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import type { Protocol } from '../../src/model/address.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { haportsHere } from '../support/command-here.js';
import { loopbackBlock } from '../support/loopback.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';
import { UdpClient } from '../support/udp-client.js';

/** In three parts: before, between and after two changes of health. */
const PARTS = campaign({ share: [400, 300, 300], whole: [4000, 3000, 3000] });
const ALL = PARTS.reduce((a, b) => a + b);
/** Fewer than the connections that the admin API takes at a time. */
const AT_A_TIME = 50;
const host = loopbackBlock();
const FRONTEND = host(1);

interface Asked {
  readonly protocol: Protocol;
  readonly source: string;
  readonly destination: string;
  /** The name that answered. */
  readonly backend: string;
}

interface Answer {
  readonly candidates: readonly { readonly name: string; readonly chosen: boolean }[];
}

/** Sends from a random address of the block and a port of the system's choice, and tells who answers. */
async function ask(protocol: Protocol): Promise<Asked> {
  const random = (count: number): number => Math.floor(Math.random() * count);
  const address = host(100 + random(150));
  const port = 7000 + random(20);
  const target = { host: FRONTEND, port, localAddress: address };
  const told = (backend: string | undefined, localPort: number | undefined): Asked => {
    assert.ok(backend !== undefined && localPort !== undefined, `no answer from ${FRONTEND}:${port}`);
    return { protocol, source: `${address}:${localPort}`, destination: `${FRONTEND}:${port}`, backend };
  };
  if (protocol === 'tcp') {
    const client = await TcpClient.connect(target, 10_000);
    const asked = told(await client.backend(10_000), client.socket.localPort);
    // A RST leaves no TIME_WAIT behind.
    client.socket.resetAndDestroy();
    return asked;
  }
  const client = await UdpClient.open(target);
  const asked = told(await client.backend(10), client.socket.address().port);
  client.close();
  return asked;
}

void describe(`${ALL} flows with two changes of health`, () => {
  const service = useService(
    {
      ...{ ports: [7000, 7019], workers: 1 },
      probe: NVA_PROBE,
      pool: {
        // Unequal weights, so that a prediction that forgot them would be wrong.
        backends: [1, 2, 3].map((n) => ({ name: `nva-${n}`, address: host(10 + n), weight: n })),
      },
      rule: { idleTimeout: { udp: '1s' } },
    },
    { isStarted: false },
  );
  let folder: string;
  let flowLog: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-test-'));
    flowLog = join(folder, 'flow.log');
    await service.start({ top: { seed: 4711, flowLog: { file: flowLog } } });
  });

  after(() => rm(folder, { recursive: true, force: true }));

  const explained = async ({ protocol, source, destination }: Asked): Promise<string | undefined> => {
    const query = new URLSearchParams({ protocol, source, destination });
    const { candidates } = await service.process.get<Answer>(`/v1/explain?${query.toString()}`);
    return candidates.find(({ chosen }) => chosen)?.name;
  };

  const health = async (nva: number, state: 'sick' | 'well'): Promise<void> => {
    await service.nvas[nva - 1]!.setHealth(state);
    await eventually(
      async () => {
        const { backends } = await service.process.get<BackendPoolView>('/v1/pools/nvas');
        return backends.find(({ name }) => name === `nva-${nva}`)?.serving === (state === 'well');
      },
      10_000,
      `nva-${nva} to be ${state}`,
    );
  };

  test('explain and the live decision agree on every one of them', async (context) => {
    const shares = new Map<string, number>();
    for (const [part, flows] of PARTS.entries()) {
      if (part === 1) await health(3, 'sick');
      if (part === 2) await health(3, 'well');
      for (let done = 0; done < flows; done += AT_A_TIME) {
        const protocolOf = (index: number): Protocol => (index % 2 === 0 ? 'tcp' : 'udp');
        const asked = await Promise.all(
          Array.from({ length: AT_A_TIME }, (_, index) => ask(protocolOf(index))),
        );
        const names = await Promise.all(asked.map(explained));
        for (const [index, flow] of asked.entries()) {
          assert.equal(names[index], flow.backend, `wrong about ${JSON.stringify(flow)}`);
          const key = `part ${part + 1} ${flow.backend}`;
          shares.set(key, (shares.get(key) ?? 0) + 1);
        }
      }
    }
    assert.equal(shares.get('part 2 nva-3'), undefined, 'it was down');
    assert.ok((shares.get('part 3 nva-3') ?? 0) > PARTS[2]! / 3, 'half of the weight');
    context.diagnostic([...shares].map(([key, count]) => `${key}: ${count}`).join(', '));
  });

  test('replay proves each decision of the recorded log, and finds one that was tampered with', async () => {
    await service.process.stop();
    const replayed = await haportsHere(['replay', flowLog, '--json']);
    const report = JSON.parse(replayed.stdout) as { agree: number; differ: number };
    assert.equal(replayed.code, 0, replayed.stdout + replayed.stderr);
    assert.equal(report.differ, 0);
    // A UDP client that got the port of one before it is the same flow.
    assert.ok(report.agree > 0.99 * ALL, `${report.agree} decisions`);

    const lines = (await readFile(flowLog, 'utf8')).split('\n');
    const victim = lines.findIndex(
      (line) => line.includes('"type":"start"') && line.includes(`nvas/${host(11)}`),
    );
    assert.ok(victim > 0);
    lines[victim] = lines[victim]!.replace(`"backend":"nvas/${host(11)}"`, `"backend":"nvas/${host(12)}"`);
    const forged = join(folder, 'forged.log');
    await writeFile(forged, lines.join('\n'));
    const found = await haportsHere(['replay', forged, '--json']);
    assert.equal(found.code, 1, found.stderr);
    assert.equal((JSON.parse(found.stdout) as { differ: number }).differ, 1);
  });
});
