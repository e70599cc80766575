import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ConntrackFlows } from '../../src/planes/kernel/nat/kernel-flows.js';
import { compileProgram } from '../../src/planes/kernel/program.js';
import type { PlaneEvent } from '../../src/model/events.js';
import type { KernelMode } from '../../src/model/configuration.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { eventually } from '../support/deadline.js';
import { DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type ClientFlow } from '../support/nat-lab.js';

const HOSTS = ['11', '12', '13'];
const MODES: readonly KernelMode[] = ['floating-l2', 'floating-routed'];

const pool = (family: 4 | 6): object => ({
  name: `v${family}`,
  backends: HOSTS.map((host, index) => ({
    name: `b${index + 1}`,
    address: `${family === 4 ? '10.2.0.' : 'fd02::'}${host}`,
  })),
});

const configuration = {
  seed: 3,
  frontends: ([4, 6] as const).map((family) => ({ name: `hub${family}`, address: FRONTEND[family] })),
  backendPools: [pool(4), pool(6)],
  rules: [4, 6].map((family) => ({
    ...{ name: `all${family}`, frontend: `hub${family}`, backendPool: `v${family}`, haPorts: true },
    idleTimeout: { udp: '4s' },
  })),
};

for (const mode of MODES) {
  describe(`ConntrackFlows of a kernel, ${mode}`, { skip: whyNoNamespaces() }, () => {
    let lab: FloatingLab;
    let states: KernelStates;

    before(async () => {
      states = await KernelStates.create();
      lab = await FloatingLab.create();
    });
    after(() => lab.close());

    test('lists flows with their backends, without conntrack, until they end', async () => {
      const state = states.state(configuration, { mode, interface: DEVICE, tableSize: 1021 });
      await lab.load(state);
      const tools = systemTools({ namespace: lab.namespaces.full('lb') });
      const files = { readText: (path: string) => lab.namespaces.must('lb', 'cat', [path]) };
      const mirror = new ConntrackFlows({ clock, tools, files, picker: states.picker }, { flowEvents: true });
      const events: PlaneEvent[] = [];
      mirror.subscribe((batch) => events.push(...batch));
      mirror.consume();
      mirror.update(state, compileProgram(state));
      await mirror.start();
      const flows: ClientFlow[] = Array.from({ length: 120 }, (_, index) => ({
        protocol: index % 2 === 0 ? 'tcp' : 'udp',
        host: FRONTEND[index % 4 < 2 ? 4 : 6],
        port: PORT,
        source: CLIENTS[index % 4 < 2 ? 4 : 6][index % 3] ?? '',
        sourcePort: 20_000 + index,
      }));
      const client = lab.client();
      const open = await client.do({
        kind: 'open',
        flows: flows.filter(({ protocol }) => protocol === 'tcp'),
      });
      const once = await client.once(...flows.filter(({ protocol }) => protocol === 'udp'));
      const answered = flows.map((_, index) => whoAnswered((index % 2 === 0 ? open : once)[index >> 1]));
      await eventually(
        async () => (await mirror.page({ limit: 1000 })).flows.length === 120,
        5000,
        'all flows',
      );
      const listed = (await mirror.page({ limit: 1000 })).flows;
      const wrong = listed.filter(({ backendId, tuple }) => {
        const name = `b${HOSTS.indexOf(backendId.split(/[.:]/).at(-1) ?? '') + 1}`;
        return name !== answered[tuple.sourcePort - 20_000];
      });
      assert.deepEqual(wrong, []);
      assert.deepEqual([...new Set(listed.map(({ reason }) => reason))], ['hash']);
      assert.ok(listed.every(({ bytesToBackend }) => bytesToBackend > 0));
      await eventually(
        async () => {
          const { traffic } = await mirror.counters();
          return traffic.every((row) => row.protocol === 'tcp' || row.flowsActive === 0);
        },
        15_000,
        'UDP flows to end',
      );
      // Events that wait are told then.
      await mirror.stop();
      const ends = events.flatMap((event) => (event.type === 'flow-ended' ? [event] : []));
      assert.deepEqual(
        [...new Set(ends.map(({ end, flow }) => `${flow.tuple.protocol} ${end}`))],
        ['udp idle'],
      );
      assert.equal(mirror.count(), 60);
    });
  });
}
