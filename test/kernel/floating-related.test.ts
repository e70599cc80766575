import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { KernelMode } from '../../src/model/configuration.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type LabClient } from '../support/nat-lab.js';

const skip = whyNoNamespaces('perl');
const ICMP_ERROR = join(process.cwd(), 'test', 'support', 'icmp-error.pl');
const HOSTS = { 4: '10.2.0.1', 6: 'fd02::1' } as const;
const FLOWS = 60;

const PORTS = Array.from({ length: FLOWS }, (_, index) => 30_000 + index);
const AS_MARK = `map { ${PORTS.map((port) => `${port} : ${port}`).join(', ')} }`;

/** Notes the port of the client in each error that arrives. */
const NOTES = `table inet notes {
  set seen4 { type mark; size 65536; flags dynamic; }
  set seen6 { type mark; size 65536; flags dynamic; }
  chain arrive { type filter hook prerouting priority 0; policy accept;
    icmp type destination-unreachable meta mark set @th,240,16 ${AS_MARK} update @seen4 { meta mark }
    icmpv6 type destination-unreachable meta mark set @th,400,16 ${AS_MARK} update @seen6 { meta mark }
  }
}`;

for (const mode of ['floating-l2', 'floating-routed'] satisfies KernelMode[]) {
  describe(`ICMP errors, ${mode}`, { skip }, () => {
    let lab: FloatingLab;
    let client: LabClient;
    let states: KernelStates;

    before(async () => {
      states = await KernelStates.create();
      lab = await FloatingLab.create();
      client = lab.client();
      for (const name of BACKENDS) await lab.namespaces.nft(name, NOTES);
    });
    after(() => lab.close());

    function state(
      family: 4 | 6,
      names: readonly string[],
      flowState: 'pinned' | 'stateless',
    ): ForwardingState {
      const backends = names.map((name) => ({ name, address: `${HOSTS[family]}${name.slice(1)}` }));
      return states.state(
        {
          frontends: [{ name: 'hub', address: FRONTEND[family] }],
          backendPools: [{ name: 'nvas', backends }],
          rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true }],
        },
        { mode, flowState, interface: DEVICE },
      );
    }

    /** By port of the client: who got an error about it. */
    async function noted(family: 4 | 6): Promise<ReadonlyMap<number, string>> {
      const by = new Map<number, string>();
      for (const name of BACKENDS) {
        const list = ['list', 'set', 'inet', 'notes', `seen${family}`];
        const text = await lab.namespaces.must(name, 'nft', list);
        await lab.namespaces.nft(name, `flush set inet notes seen${family}`);
        for (const [mark] of text.matchAll(/0x[0-9a-f]+/g)) {
          const port = Number(mark);
          by.set(port, by.has(port) ? 'two' : name);
        }
      }
      return by;
    }

    for (const flowState of ['pinned', 'stateless'] as const) {
      for (const family of [4, 6] as const) {
        test(`${FLOWS} of ${FLOWS} errors reach the backend of the flow, IPv${family}, ${flowState}`, async () => {
          const source = CLIENTS[family][0];
          const flows = PORTS.map((sourcePort) => ({
            protocol: 'udp' as const,
            host: FRONTEND[family],
            port: PORT,
            source,
            sourcePort,
          }));
          // Flows that are pinned stay where their hashes would not take them any more.
          await lab.clear();
          if (flowState === 'pinned') await lab.load(state(family, ['b1', 'b3'], flowState));
          else await lab.load(state(family, BACKENDS, flowState));
          const answers = (await client.once(...flows)).map(whoAnswered);
          await lab.load(state(family, BACKENDS, flowState));
          const args = [ICMP_ERROR, FRONTEND[family], String(PORT), source, ...PORTS.map(String)];
          await lab.namespaces.must('client', 'perl', args);
          const by = await noted(family);
          assert.deepEqual(
            PORTS.map((port) => by.get(port)),
            answers,
          );
          assert.equal(new Set(answers).size, flowState === 'pinned' ? 2 : 3);
        });
      }
    }
  });
}
