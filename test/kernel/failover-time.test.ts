import assert from 'node:assert/strict';
import { before, describe, test, type TestContext } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import type { HaportsProcess } from '../support/haports-process.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { logEvents } from '../support/log-lines.js';
import { BACKENDS, CLIENTS, configurationFor, FRONTEND, HUB, hub } from '../support/topologies.js';
import { makeFlows, names, type Answer, type Traffic } from '../support/traffic.js';

/*
 * How long new flows still reach a backend after it was found down, with 10,000 flows in the kernel's table and 1,000 new
 * ones a second. The backend itself goes on serving, so that each flow that still reaches it is seen.
 */

const [PORT, PROBE_PORT] = [8080, 9000];
const LIMIT_MS = 100;
/** So many of the goes have to be good: what a busy machine adds is not the balancer's. */
const { goes: GOES, good: GOOD } = campaign({ share: { goes: 4, good: 1 }, whole: { goes: 8, good: 4 } });
/** Of TCP as of UDP. */
const HELD = campaign({ share: 1000, whole: 5000 });
/** For two seconds, or four: some half of them come after the verdict. */
const NEW_FLOWS = campaign({ share: 2000, whole: 4000 });
/** Of four packets at least each: the stream has come to its rate by then. */
const EARLY_FLOWS = 500;

/** One change in the middle of a stream of new flows. */
interface Go {
  readonly flows: readonly Answer[];
  readonly verdictAtMs: number;
}

describe(
  `new flows after a verdict, with ${2 * HELD} flows in the kernel`,
  { skip: whyNoNamespaces() },
  () => {
    const lab = useLab(hub('through'));
    const { client: clientHost, lb } = lab.hosts;
    const backends = new Map<string, Traffic>();
    let haports: HaportsProcess;
    let client: Traffic;

    before(async () => {
      for (const name of BACKENDS) {
        const backend = await lab.host(name).serve({ name, ports: [PORT], protocols: ['tcp'] });
        await backend.health(PROBE_PORT);
        backends.set(name, backend);
      }
      haports = await lb.haports(
        configurationFor(HUB, {
          dataPlane: { kind: 'kernel', kernel: { mode: 'nat', manageSysctls: true, onStop: 'remove' } },
          probe: { protocol: 'http', port: PROBE_PORT, path: '/', interval: '250ms', threshold: 3 },
          top: { logging: { format: 'json' } },
        }),
      );
      await allServe();
      client = clientHost.traffic();
      const holder = clientHost.traffic();
      const to = { host: FRONTEND[4], port: PORT, source: CLIENTS[4] };
      await holder.open(makeFlows(HELD, { ...to, sourcePort: 20_000 }), { timeoutMs: 10_000, atOnce: 100 });
      await holder.burst({ host: FRONTEND[4], firstPort: 10_000, count: HELD, perSecond: 5000 });
      const count = Number(await lb.must('conntrack -C'));
      assert.ok(count >= 2 * HELD, `${count} flows in the table`);
    });

    const allServe = () =>
      eventually(
        async () => (await haports.get<BackendPoolView>('/v1/pools/v4')).serving === BACKENDS.length,
        10_000,
        'three backends to serve',
      );

    /** Begins a stream of new flows. Resolves when it has come to its rate. */
    async function stream(): Promise<{ readonly answers: Promise<readonly Answer[]> }> {
      const flow = { protocol: 'tcp', host: FRONTEND[4], port: PORT } as const;
      const { packets } = await clientHost.sent('router');
      const answers = client.ask(Array<typeof flow>(NEW_FLOWS).fill(flow), {
        ...{ perSecond: 1000, timeoutMs: 2000 },
      });
      const isFlowing = async (): Promise<boolean> =>
        (await clientHost.sent('router')).packets > packets + 4 * EARLY_FLOWS;
      await eventually(isFlowing, 10_000, 'new flows');
      return { answers };
    }

    async function mostly(t: TestContext, dead: string, go: () => Promise<Go>): Promise<void> {
      const failures: unknown[] = [];
      for (let good = 0; good < GOOD;) {
        const done = await go();
        await allServe();
        try {
          const { lastMs, figures } = figuresOf(done, dead);
          t.diagnostic(figures);
          assert.ok(lastMs <= LIMIT_MS, figures);
          good++;
        } catch (error) {
          failures.push(error);
          if (failures.length > GOES - GOOD)
            throw new AggregateError(failures, failures.map(String).join('\n'));
        }
      }
    }

    test(`none comes to the dead ${LIMIT_MS} ms after a probe's verdict`, async (t) => {
      await mostly(t, 'b2', async () => {
        const { answers } = await stream();
        await backends.get('b2')?.health(PROBE_PORT, 503);
        const flows = await answers;
        const line = logEvents(haports.log(), 'health-changed').findLast(({ to }) => to === 'down');
        await backends.get('b2')?.health(PROBE_PORT, 200);
        return { flows, verdictAtMs: line?.['backendName'] === 'b2' ? Number(line['atMs']) : NaN };
      });
    });

    test(`none comes to the dead ${LIMIT_MS} ms after an administrator's word`, async (t) => {
      const setAdminState = (adminState: 'down' | 'none') =>
        haports.must('PUT', '/v1/backends/v4/b3/admin-state', { adminState });
      await mostly(t, 'b3', async () => {
        const { answers } = await stream();
        const verdictAtMs = Date.now();
        await setAdminState('down');
        const flows = await answers;
        await setAdminState('none');
        return { flows, verdictAtMs };
      });
    });
  },
);

function figuresOf(
  { flows, verdictAtMs }: Go,
  dead: string,
): { readonly lastMs: number; readonly figures: string } {
  const isLate = ({ atMs = 0 }: Answer): boolean => atMs >= verdictAtMs;
  const [early, late] = [flows.filter((flow) => !isLate(flow)), flows.filter(isLate)];
  const misplaced = late.filter(({ by }) => by === dead).map(({ atMs = 0 }) => atMs - verdictAtMs);
  const unanswered = names(flows).filter((by) => !BACKENDS.some((name) => name === by));
  const lastMs = Math.max(0, ...misplaced);
  const figures =
    `${flows.length} new flows, ${late.length} after the verdict; ${misplaced.length} misplaced, ` +
    `the last ${lastMs} ms after it; ${unanswered.length} unanswered`;
  assert.ok(names(early).includes(dead), `no flow reached ${dead} before: ${figures}`);
  assert.ok(late.length > 500, figures);
  // One in 81 finds nobody in four tries while the table still names the dead one, and comes again a second later.
  assert.ok(unanswered.length <= flows.length / 100, `${figures}: ${unanswered.slice(0, 5).join()}`);
  return { lastMs, figures };
}
