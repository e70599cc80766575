import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { nextHopSetup } from '../../src/planes/kernel/ebpf/next-hop.js';
import { parseCidr } from '../../src/model/address.js';
import { flushInstance } from '../../src/planes/netfilter/nft.js';
import { type KernelSetup } from '../../src/planes/netfilter/setup.js';
import { Reconciler } from '../../src/planes/netfilter/reconciler.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { systemClock } from '../../src/runtime/clock.js';
import { eventually } from '../support/deadline.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';
import {
  CLOSED_PORT,
  NVA_HOSTS,
  NVAS,
  SERVERS,
  SPOKE_BLOCKS,
  SpokeLab,
  SPOKES,
} from '../support/spoke-lab.js';

const BLOCKS = SPOKE_BLOCKS.flatMap((text) => parseCidr(text) ?? []);
const RAW_ECHO = join(process.cwd(), 'test', 'support', 'raw-echo.pl');
const FLOWS = 40;
/** More than fits into one packet. */
const LARGE = 4000;

function setup(states: KernelStates, flowState: 'pinned' | 'stateless'): KernelSetup {
  const families = [4, 6] as const;
  const configuration = {
    frontends: families.map((family) => ({
      name: `beyond${family}`,
      address: family === 4 ? '0.0.0.0' : '::',
    })),
    backendPools: families.map((family) => ({
      name: `nvas${family}`,
      backends: NVAS.map((name, index) => ({ name, address: `${NVA_HOSTS[family]}${index + 1}` })),
    })),
    rules: families.map((family) => ({
      ...{ name: `all${family}`, frontend: `beyond${family}`, backendPool: `nvas${family}`, haPorts: true },
    })),
  };
  const options = { mode: 'next-hop', spokes: BLOCKS, flowState } as const;
  return nextHopSetup(compileProgram(states.state(configuration, options)));
}

for (const flowState of ['pinned', 'stateless'] as const) {
  describe(`next-hop through stateful NVAs, ${flowState}`, { skip: whyNoNamespaces('ping', 'perl') }, () => {
    let lab: SpokeLab;
    let client: LabClient;
    let firstPort = 20_000;

    before(async () => {
      lab = await SpokeLab.create();
      await lab.load(setup(await KernelStates.create(), flowState));
    });
    after(() => lab.close());
    beforeEach(() => {
      client = lab.client('spoke-a');
      firstPort += 1000;
    });

    function datagrams(family: 4 | 6, wishes: Partial<ClientFlow>): ClientFlow[] {
      return Array.from({ length: FLOWS }, (_, index) => ({
        ...{ protocol: 'udp', host: SERVERS['spoke-z'][family], port: 443 },
        source: SPOKES['spoke-a'][family][index % 4] ?? '',
        sourcePort: firstPort + index,
        ...wishes,
      }));
    }

    for (const family of [4, 6] as const) {
      test(`errors cross the NVA that knows their flow, IPv${family}`, async () => {
        const answers = await client.once(...datagrams(family, { port: CLOSED_PORT }));
        assert.equal(answers.filter((answer) => answer === 'ECONNREFUSED').length, FLOWS);
      });

      test(`fragments cross the NVA of their flow, IPv${family}`, async () => {
        const answers = await client.once(...datagrams(family, { bytes: LARGE }));
        assert.equal(answers.filter((answer) => whoAnswered(answer) === 'spoke-z').length, FLOWS);
      });

      test(`echo requests cross an NVA, and their replies the same, IPv${family}`, async () => {
        for (const source of SPOKES['spoke-a'][family]) {
          const args = [`-${family}`, '-c2', '-i0.2', '-W2', '-I', source, SERVERS['spoke-z'][family]];
          assert.match((await lab.namespaces.run('spoke-a', 'ping', args)).stdout, / 2 received/);
        }
      });
    }

    for (const [name, protocol] of [
      ['GRE', '47'],
      ['ESP', '50'],
    ] as const) {
      test(`${name} crosses an NVA, and its answers the same`, async () => {
        const args = [RAW_ECHO, 'answer', protocol, 'spoke-z'];
        const server = lab.namespaces.spawn('spoke-z', 'perl', args, {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        assert.ok(server.stdout);
        await once(server.stdout, 'data');
        for (const source of SPOKES['spoke-a'][4]) {
          const ask = [RAW_ECHO, 'ask', protocol, source, SERVERS['spoke-z'][4]];
          assert.equal((await lab.namespaces.must('spoke-a', 'perl', ask)).trim(), 'spoke-z');
        }
        server.kill();
      });
    }
  });
}

describe('the setup of next-hop in the kernel', { skip: whyNoNamespaces() }, () => {
  test('the reconciler finds it as it was put there, puts it right, and takes it all away', async () => {
    const lab = await SpokeLab.create();
    const tools = systemTools({ namespace: lab.namespaces.full('lb') });
    const keeper = new Reconciler(
      { clock: systemClock, tools, onChange: () => undefined },
      { instance: 'haports', pollMs: 30, elementsEveryMs: 1 },
    );
    try {
      const before = await lab.namespaces.ip('lb', 'rule show');
      await keeper.want([{ setup: setup(await KernelStates.create(), 'pinned') }]);
      const rules = await lab.namespaces.ip('lb', '-N rule show');
      assert.equal(rules.match(/fwmark/g)?.length, 3);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const { state, repairs, failures } = keeper.report();
      assert.deepEqual({ state, repairs, failures }, { state: 'in-place', repairs: 0, failures: 0 });

      await lab.namespaces.ip('lb', 'rule del pref 680');
      const table = /fwmark \S+ lookup (\d+)/.exec(rules)?.[1] ?? '';
      await lab.namespaces.ip('lb', `route flush table ${table}`);
      const isRight = async (): Promise<boolean> =>
        sorted(await lab.namespaces.ip('lb', '-N rule show')) === sorted(rules) &&
        (await lab.namespaces.ip('lb', `route show table ${table}`)).includes('default via');
      await eventually(isRight, 10_000, 'rules and routes to be as they were');

      // Another table knows who is near from the one before.
      await lab.namespaces.nft('lb', 'add element inet haports near { 02:00:00:00:00:11 }');
      await keeper.want([{ setup: setup(await KernelStates.create(), 'stateless') }]);
      const near = await lab.namespaces.must('lb', 'nft', ['list', 'set', 'inet', 'haports', 'near']);
      assert.match(near, /02:00:00:00:00:11 expires 9m/);

      await keeper.release();
      const removed = await flushInstance(tools, 'haports');
      assert.equal(removed.filter((line) => line.includes(' rule ')).length, 6);
      assert.equal(removed.filter((line) => line.includes(' route default via ')).length, 6);
      assert.equal(await lab.namespaces.ip('lb', 'rule show'), before);
      assert.equal(await lab.namespaces.must('lb', 'nft', ['list', 'tables']), '');
    } finally {
      await keeper.release();
      await lab.close();
    }
  });
});

/** Rules of one preference are listed in the order they were made. */
function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}
