import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { referenceMaglev } from '../selection/reference-maglev.js';
import { FakeDeps } from './fake-deps.js';

/** Slot 36 of 4093 for 10.1.0.2:40000 -> 10.9.0.10:443 over TCP: what nftables chose on a real kernel. */
const SEED = 0x12345678;
const SLOT = 36;
const FLOW = ['tcp', '10.1.0.2:40000', '10.9.0.10:443'] as const;
const MEMBERS = ['10.2.0.11', '10.2.0.12', '10.2.0.13'];

/** Three backends on the kernel data plane. */
function kernel(options: Record<string, unknown>, rule: Record<string, unknown> = {}, address = '10.9.0.10') {
  return {
    seed: SEED,
    dataPlane: { kind: 'kernel', kernel: options },
    frontends: [{ name: 'hub', address }],
    probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
    backendPools: [
      {
        name: 'nvas',
        backends: MEMBERS.map((member, index) => ({ name: `nva-${index + 1}`, address: member })),
      },
    ],
    rules: [{ name: 'ha', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true, ...rule }],
  };
}

const NAT = kernel({});
const L2 = kernel({ mode: 'floating-l2', interface: 'eth0' }, { floatingIp: true });
const HOP = kernel({ mode: 'next-hop' }, { flowPolicy: 'firewall' }, '0.0.0.0');

describe('explain without a process, for the kernel data plane', () => {
  async function explained(configuration: object, flow: readonly string[] = FLOW): Promise<Explained> {
    const deps = FakeDeps.with(configuration);
    assert.equal(await deps.run('explain', '-c', 'config.json', ...flow, '--json'), 0);
    return JSON.parse(deps.stdout) as Explained;
  }

  test('hashes as the kernel does', async () => {
    const owner = referenceMaglev(
      MEMBERS.map((member) => `nvas/${member}`),
      4093,
    )[SLOT];
    for (const configuration of [NAT, L2, HOP]) {
      const { key, table, result } = await explained(configuration);
      assert.equal(key.algorithm, 'jhash');
      assert.equal(key.hex, '0a0100020a09000a060000009c40000001bb0000');
      assert.equal(key.hash, 0x02421753);
      assert.deepEqual([table.slot, table.size, result.backendId], [SLOT, 4093, owner]);
    }
  });

  test('says with which destination packets reach the backend', async () => {
    const mapped = { haPorts: false, protocol: 'tcp', frontendPort: 443, backendPort: 6443 };
    const { endpoint, result } = await explained(kernel({}, mapped));
    assert.equal(endpoint.text, `${result.backendId.slice('nvas/'.length)}:6443`);
    assert.equal((await explained(L2)).endpoint.text, '10.9.0.10:443');
    assert.equal((await explained(HOP)).endpoint.text, '10.9.0.10:443');
  });

  test('gives both directions between spokes one backend', async () => {
    const spokes = ['10.1.0.0/16', '10.9.0.0/16'];
    for (const flowState of ['pinned', 'stateless']) {
      const hop = kernel({ mode: 'next-hop', flowState, spokes }, {}, '0.0.0.0');
      for (let port = 40_000; port < 40_006; port++) {
        const there = await explained(hop, ['udp', `10.1.0.2:${port}`, '10.9.0.10:53']);
        const back = await explained(hop, ['udp', '10.9.0.10:53', `10.1.0.2:${port}`]);
        assert.equal(there.key.hex, back.key.hex);
        assert.equal(there.result.backendId, back.result.backendId);
      }
    }
  });
});

interface Explained {
  readonly key: { readonly algorithm: string; readonly hex: string; readonly hash: number };
  readonly table: { readonly slot: number; readonly size: number };
  readonly result: { readonly backendId: string };
  readonly endpoint: { readonly text: string };
}
