import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { BackendPoolView, ReloadOutcome } from '../../src/api/views.js';
import type { AdminAnswer } from '../support/admin-api.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

/** Each kind of change several times. */
const RELOADS = campaign({ share: 30, whole: 100 });
const FLOWS = 250;
const TAKEN_PORT = 9555;

/** A configuration as an operator would edit it. */
interface Wishes {
  readonly backends?: readonly object[];
  readonly rule?: object;
  readonly probe?: object;
  readonly moreRules?: readonly object[];
}

void describe(`${RELOADS} reloads under 500 live flows`, () => {
  for (const workers of [1, 2]) suite(workers);
});

function suite(workers: number): void {
  describe(`with ${workers} data worker${workers === 1 ? '' : 's'}`, () => {
    const service = useService({
      ...{ ports: [8000, 8099], nvas: 4, workers },
      probe: { ...NVA_PROBE, interval: '1s' },
      rule: { idleTimeout: { tcp: '5m', udp: '5m' } },
    });
    const { host: address } = service;
    let occupier: Server;

    const backend = (number: number, more: object = {}): object => ({
      name: `nva-${number}`,
      address: address(10 + number),
      ...more,
    });
    const standard = [backend(1), backend(2), backend(3)];
    const configuration = ({ backends = standard, rule, probe, moreRules = [] }: Wishes = {}) => {
      const { rules, ...written } = service.configuration({
        pool: { backends },
        probe: { ...NVA_PROBE, interval: '1s', ...probe },
        rule: { idleTimeout: { tcp: '5m', udp: '5m' }, ...rule },
      });
      return { ...written, rules: [...(rules as readonly object[]), ...moreRules] };
    };
    /** What reload number n brings; text is sent as it is. */
    const variants: readonly (() => { readonly body: unknown; readonly status: number })[] = [
      () => ({ body: configuration({ backends: [...standard, backend(4)] }), status: 200 }),
      () => ({ body: configuration({ backends: [backend(3), backend(1), backend(2)] }), status: 200 }),
      () => ({ body: configuration({ rule: { name: 'renamed' } }), status: 200 }),
      () => ({
        body: configuration({ backends: [backend(1), backend(2, { weight: 5 }), backend(3)] }),
        status: 200,
      }),
      () => ({ body: '{ "frontends": [', status: 422 }),
      () => ({ body: configuration({ probe: { interval: '700ms', threshold: 40 } }), status: 200 }),
      () => ({ body: { ...configuration(), colour: 'blue' }, status: 422 }),
      () => ({
        body: configuration({ rule: { flowPolicy: 'aws-gwlb', distribution: 'source-ip' } }),
        status: 200,
      }),
      () => {
        const extra = {
          name: 'extra',
          frontend: 'hub',
          backendPool: 'nvas',
          frontendPort: TAKEN_PORT,
          protocol: 'tcp',
        };
        return { body: configuration({ moreRules: [extra] }), status: 500 };
      },
      () => ({ body: configuration({ rule: { listenPorts: '8000-8119' } }), status: 200 }),
    ];

    before(async () => {
      occupier = createServer();
      await new Promise<void>((resolve) => occupier.listen(TAKEN_PORT, address(1), resolve));
      await service.process.reload(configuration());
    });

    after(() => void occupier.close());

    const reload = (body: unknown): Promise<AdminAnswer> =>
      typeof body === 'string'
        ? service.process.call('POST', '/v1/reload', body)
        : service.process.reload(body as object);

    test(`none of ${2 * FLOWS} flows is reset or moved, and no new connection is refused or reset`, async (context) => {
      const { tcp, udp } = await service.openFlows(FLOWS);
      const newcomers = {
        going: true,
        asked: 0,
        failed: [] as string[],
      };
      const keepComing = (async () => {
        while (newcomers.going) {
          newcomers.asked++;
          try {
            const client = await TcpClient.connect(service.target(newcomers.asked));
            await client.backend();
            client.destroy();
          } catch (error) {
            newcomers.failed.push(String(error));
          }
        }
      })();

      let named = 0;
      const outcomes = { taken: 0, refused: 0 };
      let slowestMs = 0;
      for (let number = 0; number < RELOADS; number++) {
        const { body, status } = variants[number % variants.length]!();
        const answer = await reload(body);
        assert.equal(answer.status, status, `reload ${number}: ${JSON.stringify(answer.body)}`);
        if (status === 200) {
          const { report } = answer.body as ReloadOutcome;
          named += report.plan.flows.reset + report.plan.flows.drop;
          slowestMs = Math.max(slowestMs, report.durationMs);
          outcomes.taken++;
        } else {
          outcomes.refused++;
        }
      }
      newcomers.going = false;
      await keepComing;

      let moved = 0;
      for (const { client, backend: at } of tcp) {
        assert.equal(client.ending, 'open', `a TCP flow on ${at} ended`);
        if ((await client.backend()) !== at) moved++;
      }
      for (const { client, backend: at } of udp) if ((await client.backend()) !== at) moved++;
      assert.equal(moved, 0);
      assert.ok(
        newcomers.failed.length <= named,
        `${newcomers.failed.length} failed, plans named ${named}: ${newcomers.failed.slice(0, 3).join('; ')}`,
      );
      assert.ok(newcomers.asked > RELOADS);
      context.diagnostic(
        `${outcomes.taken} reloads taken, ${outcomes.refused} refused; ${2 * FLOWS} flows: 0 reset, 0 moved; ` +
          `${newcomers.asked} new connections: ${newcomers.failed.length} failed (plans named ${named}); ` +
          `slowest reload ${slowestMs.toFixed(0)} ms`,
      );
    });

    test('what an operator set is kept over reloads by identity, and lost with the backend', async () => {
      const settle = (body: unknown) => reload(body).then(({ status }) => assert.equal(status, 200));
      await settle(configuration());
      await service.ok('admin-state', 'nvas/nva-2', 'down');
      await settle(configuration({ backends: [backend(3), backend(2, { name: 'two' }), backend(1)] }));
      const exclusion = async (): Promise<unknown> => {
        const { backends } = await service.process.get<BackendPoolView>('/v1/pools/nvas');
        return backends.find((member) => member.address === address(12))?.exclusion;
      };
      assert.equal(await exclusion(), 'admin-down');
      const answer = await reload(configuration({ backends: [backend(1), backend(3)] }));
      assert.deepEqual((answer.body as ReloadOutcome).report.lost.overrides, [`nvas/${address(12)}`]);
      await settle(configuration());
      await eventually(async () => (await exclusion()) === undefined, 5000, 'nva-2 to serve again');
    });
  });
}
