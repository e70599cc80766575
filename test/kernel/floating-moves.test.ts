import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { KernelMode } from '../../src/model/configuration.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';

const RAW_ECHO = join(process.cwd(), 'test', 'support', 'raw-echo.pl');
const GRE = '47';
const FLOWS = 30;
/** Of the first flow of a test, which has the ports of no other. */
let firstPort = 20_000;

for (const mode of ['floating-l2', 'floating-routed'] satisfies KernelMode[]) {
  describe(`flows of a backend that is out, ${mode}`, { skip: whyNoNamespaces('perl') }, () => {
    let lab: FloatingLab;
    let client: LabClient;
    let states: KernelStates;

    before(async () => {
      states = await KernelStates.create();
      lab = await FloatingLab.create();
    });
    after(() => lab.close());
    beforeEach(async () => {
      await lab.clear();
      client = lab.client();
      firstPort += 1000;
    });

    /** With b2 as it is said to be. */
    function state(tcp: 'persist' | 'rebalance', b2: 'up' | 'down'): ForwardingState {
      const backends = BACKENDS.map((name) => ({ name, address: `10.2.0.1${name.slice(1)}` }));
      const flowPolicy = { adminDown: { tcp, udp: 'persist' } };
      const raw = {
        frontends: [{ name: 'hub', address: FRONTEND[4] }],
        backendPools: [{ name: 'nvas', backends }],
        rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true, flowPolicy }],
      };
      const device = mode === 'floating-l2' ? { interface: DEVICE } : {};
      return states.state(raw, { mode, ...device }, b2 === 'up' ? {} : { admin: { b2: 'down' } });
    }

    function flows(): ClientFlow[] {
      return Array.from({ length: FLOWS }, (_, index) => ({
        ...{ protocol: 'tcp', host: FRONTEND[4], port: PORT },
        ...{ source: CLIENTS[4][0], sourcePort: firstPort + index },
      }));
    }

    /** Backends note the client's port of each packet. Whoever has not opened such a flow does not say so. */
    async function takeNotes(strange: readonly number[]): Promise<void> {
      for (const name of BACKENDS) {
        const drop = name === 'b2' ? '' : `tcp sport { ${strange.join(', ')} } drop`;
        await lab.namespaces.nft(
          name,
          `table ip notes
           delete table ip notes
           table ip notes {
             set seen { type inet_service; size 65535; flags dynamic; }
             chain arrive { type filter hook prerouting priority 0; policy accept;
               ip daddr ${FRONTEND[4]} tcp dport ${PORT} update @seen { tcp sport }
               ${drop}
             }
           }`,
        );
      }
    }

    /** By port of the client: who got packets. */
    async function noted(ports: readonly number[]): Promise<string[]> {
      const seen = await Promise.all(
        BACKENDS.map(async (name) => {
          const text = await lab.namespaces.must(name, 'nft', ['list', 'set', 'ip', 'notes', 'seen']);
          const elements = /elements = \{([^}]*)\}/.exec(text)?.[1] ?? '';
          return { name, ports: new Set(elements.split(',').map(Number)) };
        }),
      );
      return ports.map((port) => seen.flatMap(({ name, ports: of }) => (of.has(port) ? [name] : [])).join());
    }

    test('rebalance moves pins of TCP flows, and they stay where they were moved', async () => {
      await lab.load(state('rebalance', 'up'));
      const opened = await client.do({ kind: 'open', flows: flows() });
      const ofB2 = flows().flatMap(({ sourcePort = 0 }, index) =>
        whoAnswered(opened[index] ?? '') === 'b2' ? [sourcePort] : [],
      );
      assert.ok(ofB2.length > 3 && ofB2.length < FLOWS - 3, `${ofB2.length}`);
      await takeNotes(ofB2);
      await lab.load(state('rebalance', 'down'));
      const asked = await client.do({ kind: 'ask', timeoutMs: 600 });
      opened.forEach((answer, index) => {
        const expected = whoAnswered(answer) === 'b2' ? 'timeout' : whoAnswered(answer);
        assert.equal(whoAnswered(asked[index] ?? ''), expected, 'others stay');
      });
      const moved = await noted(ofB2);
      assert.deepEqual(new Set(moved), new Set(['b1', 'b3']), 'each is with one other');
      const listed = await lab.listed('flows-hub');
      assert.equal(listed.filter(({ clientPort }) => ofB2.includes(clientPort)).length, ofB2.length);
      await lab.load(state('rebalance', 'up'));
      await takeNotes(ofB2);
      await client.do({ kind: 'ask', timeoutMs: 1000 });
      assert.deepEqual(await noted(ofB2), moved, 'although b2 is there again');
    });

    test('a new connection with the ports of one that is pinned to a backend that is out goes elsewhere', async () => {
      await lab.load(state('persist', 'up'));
      // The backends and the pins do not learn that the client has given up.
      await lab.namespaces.nft(
        'client',
        'table ip mute { chain leave { type filter hook output priority 0; tcp flags rst drop; }; }',
      );
      const before = (await client.once(...flows())).map(whoAnswered);
      await lab.namespaces.nft('client', 'delete table ip mute');
      const ofB2 = flows().filter((_, index) => before[index] === 'b2');
      assert.ok(ofB2.length > 3);
      assert.equal((await lab.listed('flows-hub')).length, FLOWS, 'all are pinned yet');
      await lab.load(state('persist', 'down'));
      // Else its answers to what it takes for the old connection would end the pin.
      const deaf = `table ip deaf { chain arrive { type filter hook prerouting priority 0; tcp dport ${PORT} drop; }; }`;
      await lab.namespaces.nft('b2', deaf);
      const again = await client.once(...ofB2);
      await lab.namespaces.nft('b2', 'delete table ip deaf');
      assert.deepEqual(new Set(again.map(whoAnswered)), new Set(['b1', 'b3']), again.join());
      await lab.load(state('persist', 'up'));
      const kept = (await lab.listed('flows-hub')).filter(({ clientPort }) =>
        ofB2.some(({ sourcePort }) => sourcePort === clientPort),
      );
      assert.deepEqual(kept, [], 'they have ended properly, the old ones too');
    });

    test('GRE is balanced by address, and stays while its backend takes no new flows', async () => {
      await lab.load(state('persist', 'up'));
      for (const name of BACKENDS) {
        const args = [RAW_ECHO, 'answer', GRE, name, FRONTEND[4]];
        const server = lab.namespaces.spawn(name, 'perl', args, { stdio: ['ignore', 'pipe', 'inherit'] });
        assert.ok(server.stdout);
        await once(server.stdout, 'data');
      }
      const more = Array.from({ length: 6 }, (_, index) => `10.1.0.${20 + index}`);
      const sources = [...CLIENTS[4], ...more];
      for (const source of more) {
        await lab.namespaces.run('client', 'ip', ['address', 'add', `${source}/24`, 'dev', 'router']);
      }
      // One by one: a raw socket takes what comes for others until it is bound.
      const names = async (): Promise<string[]> => {
        const answers: string[] = [];
        for (const source of sources) {
          const args = [RAW_ECHO, 'ask', GRE, source, FRONTEND[4]];
          answers.push((await lab.namespaces.must('client', 'perl', args)).trim());
        }
        return answers;
      };
      const before = await names();
      assert.deepEqual(new Set(before), new Set(BACKENDS));
      await lab.load(state('persist', 'down'));
      assert.deepEqual(await names(), before, 'pinned');
      await lab.flush('pins-hub');
      assert.deepEqual(new Set(await names()), new Set(['b1', 'b3']), 'as new ones');
    });
  });
}
