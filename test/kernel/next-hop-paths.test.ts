import assert from 'node:assert/strict';
import { before, beforeEach, describe, test } from 'node:test';
import type { KernelOptions } from '../../src/model/configuration.js';
import { flushInstance } from '../../src/planes/netfilter/nft.js';
import { Reconciler } from '../../src/planes/netfilter/reconciler.js';
import { systemClock } from '../../src/runtime/clock.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import {
  CLOSED_PORT,
  crossedNvas,
  crossingOf,
  PROBE_PORT,
  SERVER_PORTS,
  useSpokes,
} from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { RAW_PACKETS } from '../support/raw-packets.js';
import {
  BEYOND,
  FAMILIES,
  NVAS,
  SERVERS,
  SPOKE_NAMES,
  SPOKES,
  type Family,
  type Spoke,
} from '../support/topologies.js';
import { makeFlows, names, type Flow, type FlowPlan, type Traffic } from '../support/traffic.js';

/** From each spoke. */
const FLOWS = campaign({ share: 100, whole: 200 });
const FLOW_STATES = ['pinned', 'stateless'] as const;
const OTHER_SPOKE = { 'spoke-a': 'spoke-z', 'spoke-z': 'spoke-a' } as const;
/** More than fits into one packet. */
const LARGE = 4000;

for (const onward of ['past', 'through'] as const) {
  describe(
    `next-hop with stateful NVAs that send packets on ${onward} the balancer`,
    { skip: whyNoNamespaces() },
    () => {
      const kernel = useSpokes(onward);
      const { lab } = kernel;
      const clients = new Map<Spoke, Traffic>();
      let prober: Traffic;
      let sourcePort = 20_000;
      before(() => {
        for (const spoke of SPOKE_NAMES) clients.set(spoke, lab.host(spoke).traffic());
        prober = lab.host('lb').traffic();
      });

      /** Answers that came, and where flows went that an NVA was predicted for: half of each protocol from either spoke. */
      async function run(family: Family, options: Partial<KernelOptions>, timeoutMs = 3000) {
        const state = await kernel.load({ families: [family], top: { seed: 0x12345678 } }, {}, { options });
        await Promise.all((['lb', ...NVAS] as const).map((name) => lab.host(name).run('conntrack -F')));
        await probe(family);
        // Each run has its own ports: nothing that a server remembers is in the way.
        sourcePort += 1000;
        let [asked, answered, asPredicted, twice] = [0, 0, 0, 0];
        for (const here of SPOKE_NAMES) {
          const there = OTHER_SPOKE[here];
          const to = { protocol: ['tcp', 'udp'], host: SERVERS[there][family], port: SERVER_PORTS } as const;
          const flows = makeFlows(FLOWS, { ...to, source: SPOKES[here][family], sourcePort });
          const answers = names(await clients.get(here)!.ask(flows, { timeoutMs }));
          const crossed = await crossedNvas(lab);
          for (const [index, flow] of flows.entries()) {
            const path = crossed.get(crossingOf(flow)) ?? [];
            asked++;
            if (answers[index] === there) answered++;
            if (path.join() === kernel.states.predict(state, flow)) asPredicted++;
            if (path.length > 1) twice++;
          }
        }
        return { asked, answered, asPredicted, twice };
      }

      /** As probes do, so that their answers are seen. */
      async function probe(family: Family): Promise<void> {
        const flows = NVAS.map((name) => ({
          ...{ protocol: 'tcp' as const, host: BEYOND.backends[name]![family], port: PROBE_PORT },
        }));
        assert.deepEqual(names(await prober.ask(flows)), NVAS);
      }

      for (const family of FAMILIES) {
        for (const flowState of FLOW_STATES) {
          test(`all flows answered and where explain says, ${flowState}, IPv${family}`, async () => {
            const all = 2 * FLOWS;
            assert.deepEqual(await run(family, { flowState }), {
              asked: all,
              answered: all,
              asPredicted: all,
              twice: 0,
            });
          });
        }
      }

      if (onward === 'through') return;
      test('a hash of each packet by itself, in its own direction, breaks most flows: the control', async () => {
        const { answered, asked } = await run(4, { flowState: 'stateless', spokes: [] }, 300);
        assert.ok(answered < asked / 2, `${answered} of ${asked} answered`);
        // About a third meets the same NVA by chance.
        assert.ok(answered > asked / 5, `${answered} of ${asked} answered`);
      });

      test('all flows answered without spokes, pinned', async () => {
        const { answered, asked, asPredicted } = await run(4, { spokes: [] });
        assert.deepEqual({ answered, asPredicted }, { answered: asked, asPredicted: asked });
      });
    },
  );
}

describe('next-hop, protocols through stateful NVAs', { skip: whyNoNamespaces('ping', 'perl') }, () => {
  const kernel = useSpokes();
  const { 'spoke-a': here, 'spoke-z': there } = kernel.lab.hosts;
  let client: Traffic;
  let sourcePort = 20_000;
  before(async () => {
    client = here.traffic();
    for (const protocol of [47, 50]) await there.start(`perl ${RAW_PACKETS} answer ${protocol} spoke-z`);
  });

  for (const flowState of FLOW_STATES) {
    describe(flowState, () => {
      before(async () => {
        await kernel.load({ families: FAMILIES }, {}, { options: { flowState } });
      });
      beforeEach(() => {
        sourcePort += 1000;
      });

      function datagrams(family: Family, of: Partial<FlowPlan>): readonly Flow[] {
        const to = { protocol: 'udp', host: SERVERS['spoke-z'][family], port: 443 } as const;
        return makeFlows(40, { ...to, source: SPOKES['spoke-a'][family], sourcePort, ...of });
      }

      for (const family of FAMILIES) {
        test(`errors cross the NVA that knows their flow, IPv${family}`, async () => {
          const answers = names(await client.ask(datagrams(family, { port: CLOSED_PORT })));
          assert.deepEqual(answers, Array(40).fill('ECONNREFUSED'));
        });

        test(`fragments cross the NVA of their flow, IPv${family}`, async () => {
          const answers = names(await client.ask(datagrams(family, { bytes: LARGE })));
          assert.deepEqual(answers, Array(40).fill('spoke-z'));
        });

        test(`echo requests cross an NVA, and their replies the same, IPv${family}`, async () => {
          for (const source of SPOKES['spoke-a'][family]) {
            const ping = `ping -${family} -c2 -i0.2 -W2 -I ${source} ${SERVERS['spoke-z'][family]}`;
            assert.match((await here.run(ping)).stdout, / 2 received/);
          }
        });
      }

      for (const [name, protocol] of [
        ['GRE', 47],
        ['ESP', 50],
      ] as const) {
        test(`${name} crosses an NVA, and its answers the same`, async () => {
          for (const source of SPOKES['spoke-a'][4]) {
            const ask = `perl ${RAW_PACKETS} ask ${protocol} ${source} ${SERVERS['spoke-z'][4]}`;
            assert.equal((await here.must(ask)).trim(), 'spoke-z');
          }
        });
      }
    });
  }
});

describe('the setup of next-hop in the kernel', { skip: whyNoNamespaces() }, () => {
  const kernel = useSpokes();
  const { lb } = kernel.lab.hosts;
  const setup = (flowState: 'pinned' | 'stateless') =>
    kernel.setupOf(kernel.state({ families: FAMILIES }, {}, { options: { flowState } }));

  test('the reconciler finds it as it was put there, puts it right, and takes it all away', async () => {
    const { tools } = kernel;
    const keeper = new Reconciler(
      { clock: systemClock, tools, onChange: () => undefined },
      { instance: 'haports', pollMs: 30, elementsEveryMs: 1 },
    );
    try {
      const before = await lb.ip('rule show');
      await keeper.want([{ setup: setup('pinned') }]);
      const rules = await lb.ip('-N rule show');
      assert.equal(rules.match(/fwmark/g)?.length, 3);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const { state, repairs, failures } = keeper.report();
      assert.deepEqual({ state, repairs, failures }, { state: 'in-place', repairs: 0, failures: 0 });

      await lb.ip('rule del pref 680');
      const table = /fwmark \S+ lookup (\d+)/.exec(rules)?.[1] ?? '';
      await lb.ip(`route flush table ${table}`);
      const isRight = async (): Promise<boolean> =>
        sorted(await lb.ip('-N rule show')) === sorted(rules) &&
        (await lb.ip(`route show table ${table}`)).includes('default via');
      await eventually(isRight, 10_000, 'rules and routes to be as they were');

      // Another table knows who is near from the one before.
      await lb.nft('add element inet haports near { 02:00:00:00:00:11 }');
      await keeper.want([{ setup: setup('stateless') }]);
      assert.match(await lb.must('nft list set inet haports near'), /02:00:00:00:00:11 expires 9m/);

      await keeper.release();
      const removed = await flushInstance(tools, 'haports');
      assert.equal(removed.filter((line) => line.includes(' rule ')).length, 6);
      assert.equal(removed.filter((line) => line.includes(' route default via ')).length, 6);
      assert.equal(await lb.ip('rule show'), before);
      assert.equal(await lb.must('nft list tables'), '');
    } finally {
      await keeper.release();
    }
  });
});

/** Rules of one preference are listed in the order they were made. */
function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}
