import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
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

describe('commands without a process, for the kernel data plane', () => {
  let deps: FakeDeps;
  beforeEach(() => {
    deps = new FakeDeps();
  });

  async function run(files: Record<string, object>, ...args: readonly string[]): Promise<number> {
    for (const [name, content] of Object.entries(files)) deps.files.set(name, content);
    const code = await deps.run(...args);
    assert.equal(deps.stderr, '');
    return code;
  }

  async function explained(configuration: object, flow: readonly string[] = FLOW): Promise<Explained> {
    deps = new FakeDeps();
    await run({ 'k.json': configuration }, 'explain', '-c', 'k.json', ...flow, '--json');
    return JSON.parse(deps.stdout) as Explained;
  }

  test('check tells what the mode needs and exits 0', async () => {
    assert.equal(await run({ 'k.json': L2 }, 'check', '-c', 'k.json'), 0);
    assert.match(deps.stdout, /note V18 rules\[0\]\.floatingIp: .*loopback interface .*haports doctor/);
    assert.match(deps.stdout, /k\.json can be used: /);
  });

  test('check exits 2 where the data plane cannot do what is asked', async () => {
    const asked = kernel({}, { udp: { perPacket: true } });
    assert.equal(await run({ 'k.json': asked }, 'check', '-c', 'k.json'), 2);
    assert.match(deps.stdout, /error LB_KERNEL_CANNOT rules\[0\]\.udp\.perPacket: .*not single datagrams/);
  });

  test('explain hashes as the kernel does', async () => {
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

  test('explain says with which destination packets reach the backend', async () => {
    const mapped = { haPorts: false, protocol: 'tcp', frontendPort: 443, backendPort: 6443 };
    const { endpoint, result } = await explained(kernel({}, mapped));
    assert.equal(endpoint.text, `${result.backendId.slice('nvas/'.length)}:6443`);
    assert.equal((await explained(L2)).endpoint.text, '10.9.0.10:443');
    assert.equal((await explained(HOP)).endpoint.text, '10.9.0.10:443');
  });

  test('explain says it in words, without what no socket does', async () => {
    const texts: string[] = [];
    for (const configuration of [NAT, L2, HOP]) {
      deps = new FakeDeps();
      assert.equal(await run({ 'k.json': configuration }, 'explain', '-c', 'k.json', ...FLOW), 0);
      texts.push(deps.stdout.replaceAll(/\s+/g, ' '));
      assert.doesNotMatch(deps.stdout, /connect attempt|embryonic|dialled/);
    }
    const [nat = '', l2 = '', hop = ''] = texts;
    assert.match(nat, /goes to nva-\d at 10\.2\.0\.1\d:443, by its hash/);
    assert.match(l2, /goes to nva-\d \(10\.2\.0\.1\d\) as it is, by its hash/);
    assert.match(l2, /floating IP: the backend has the address of the frontend/);
    assert.match(hop, /goes through nva-\d \(10\.2\.0\.1\d\) as it is, by its hash/);
    for (const text of texts) assert.match(text, /jhash, seed 305419896: 0x02421753 .*\* 4093 \/ 2\^32 = 36/);
    for (const text of texts) assert.match(text, /Idle end forgotten; RST to the end that sends again/);
  });

  test('explain says that a reset or a drop is meant where all are down', async () => {
    const down = MEMBERS.flatMap((_, index) => ['--down', `nvas/nva-${index + 1}`]);
    const dropping = kernel({}, { allDown: 'drop', tcpReset: false });
    await run({ 'k.json': dropping }, 'explain', '-c', 'k.json', ...down, ...FLOW);
    assert.match(deps.stdout, /goes nowhere: no backend is eligible; the flow is dropped\n/);
    assert.match(deps.stdout, /forgotten, no RST/);
  });

  test('explain gives both directions between spokes one backend', async () => {
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

  test('simulate moves the flows of a backend that is down, and of nobody else', async () => {
    for (const configuration of [NAT, L2, HOP]) {
      deps = new FakeDeps();
      const args = ['--offline', 'k.json', '--down', 'nvas/nva-2', '--json'];
      assert.equal(await run({ 'k.json': configuration }, 'simulate', ...args), 0);
      const { rules } = JSON.parse(deps.stdout) as { rules: { backends: Share[] }[] };
      const [one, two, three] = rules[0]?.backends ?? [];
      for (const share of [one, two, three]) assert.ok(Math.abs((share?.shareBefore ?? 0) - 1 / 3) < 0.03);
      assert.equal(two?.shareAfter, 0);
      for (const share of [one, three]) assert.ok(Math.abs((share?.shareAfter ?? 0) - 1 / 2) < 0.03);
    }
  });

  test('plan knows what takes a new process, and how much moves', async () => {
    const plan = async (before: object, after: object) => {
      deps = new FakeDeps();
      assert.equal(
        await run({ 'a.json': before, 'b.json': after }, 'plan', 'b.json', '--against', 'a.json', '--json'),
        0,
      );
      return (JSON.parse(deps.stdout) as { report: Planned }).report;
    };
    const smaller = structuredClone(NAT);
    smaller.backendPools[0]?.backends.pop();
    const removed = await plan(NAT, smaller);
    assert.deepEqual(removed.restartNeeded, []);
    assert.ok(removed.movedShare > 1 / 3 && removed.movedShare < 0.35, `${removed.movedShare}`);
    assert.deepEqual((await plan(NAT, L2)).restartNeeded, [
      'dataPlane.kernel.mode',
      'dataPlane.kernel.interface',
    ]);
    assert.deepEqual((await plan({ ...NAT, dataPlane: {} }, NAT)).restartNeeded, ['dataPlane.kind']);
    assert.deepEqual(
      (await plan(NAT, kernel({ returnPath: 'masquerade', onStop: 'remove' }))).restartNeeded,
      [],
    );
  });
});

interface Explained {
  readonly key: { readonly algorithm: string; readonly hex: string; readonly hash: number };
  readonly table: { readonly slot: number; readonly size: number };
  readonly result: { readonly backendId: string };
  readonly endpoint: { readonly text: string };
}

interface Share {
  readonly shareBefore: number;
  readonly shareAfter: number;
}

interface Planned {
  readonly restartNeeded: readonly string[];
  readonly movedShare: number;
}
