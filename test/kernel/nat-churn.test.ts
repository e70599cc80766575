import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { campaign } from '../support/campaign.js';
import { useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { CLIENTS, FRONTEND } from '../support/topologies.js';
import { makeFlows, names, type Traffic } from '../support/traffic.js';

const TUPLES = 100;
const ROUNDS = campaign({ share: 5, whole: 20 });
/** A SYN that is lost is sent again after a second. */
const BEFORE_A_RETRY_MS = 950;

const CASES = (['route', 'masquerade'] as const).flatMap((returnPath) =>
  ([1, CLIENTS[4].length] as const).flatMap((clients) =>
    (['client', 'server'] as const).map((endedBy) => ({ returnPath, clients, endedBy })),
  ),
);

describe('mode nat and short connections', { skip: whyNoNamespaces() }, () => {
  const kernel = useHub('nat');
  let client: Traffic;
  before(() => {
    client = kernel.lab.host('client').traffic();
  });

  for (const { returnPath, clients, endedBy } of CASES) {
    test(`${clients} client addresses, answers by ${returnPath}, closed by the ${endedBy}: tuples are used again at once`, async () => {
      await kernel.load({}, {}, { options: { returnPath } });
      await kernel.forget();
      const to = { host: FRONTEND[4], port: 443, endedBy };
      const tuples = makeFlows(TUPLES, { ...to, source: CLIENTS[4].slice(0, clients), sourcePort: 20_000 });
      const first = names(await client.ask(tuples, { timeoutMs: BEFORE_A_RETRY_MS }));
      assert.deepEqual(
        first.filter((name) => !/^b[123]$/.test(name)),
        [],
      );
      for (let round = 1; round < ROUNDS; round++) {
        const served = names(await client.ask(tuples, { timeoutMs: BEFORE_A_RETRY_MS }));
        assert.deepEqual(served, first, 'the same tuple has the same backend');
      }
      const listing = await kernel.lab.host('lb').must('conntrack -L -p tcp');
      const entries = listing.split('\n').filter((line) => line.startsWith('tcp'));
      assert.ok(entries.length <= TUPLES, `${entries.length} entries of ${TUPLES} tuples`);
      const seconds = entries.map((line) => Number(/^tcp\s+6 (\d+)/.exec(line)?.[1]));
      assert.ok(Math.max(0, ...seconds) <= 5, listing);
    });
  }
});
