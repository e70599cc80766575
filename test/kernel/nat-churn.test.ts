import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  BACKENDS,
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const TUPLES = 100;
const ROUNDS = 20;

/** A SYN that is lost is sent again after a second. */
const BEFORE_A_RETRY_MS = 950;

describe('natSetup() and short connections', { skip }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
    client = lab.client();
  });
  after(() => lab.close());

  for (const returnPath of ['route', 'masquerade'] as const) {
    for (const [clients, addresses] of [
      ['one client address', CLIENTS[4].slice(0, 1)],
      ['many client addresses', CLIENTS[4]],
    ] as const) {
      for (const endedBy of ['client', 'backend'] as const) {
        test(`${clients}, answers by ${returnPath}, closed by the ${endedBy}: tuples are used again and again at once`, async () => {
          const state = states.state(
            {
              frontends: [{ name: 'hub', address: FRONTEND[4] }],
              backendPools: [
                {
                  name: 'nvas',
                  backends: BACKENDS.map((name) => ({ name, address: `10.2.0.1${name.slice(1)}` })),
                },
              ],
              rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true }],
            },
            { returnPath },
          );
          await lab.load(natSetup(compileProgram(state)));
          await lab.forget();
          const flows = Array.from({ length: TUPLES * ROUNDS }, (_, index): ClientFlow => {
            const tuple = index % TUPLES;
            return {
              protocol: 'tcp',
              host: FRONTEND[4],
              port: 443,
              source: addresses[tuple % addresses.length] ?? '',
              sourcePort: 20_000 + tuple,
              endedBy,
            };
          });
          const answers = await client.do({ kind: 'once', flows, timeoutMs: BEFORE_A_RETRY_MS });
          const failed = answers.filter((answer) => !/^b[123] /.test(answer));
          assert.deepEqual(failed, []);
          const first = answers.slice(0, TUPLES).map(whoAnswered);
          const last = answers.slice(-TUPLES).map(whoAnswered);
          assert.deepEqual(last, first, 'the same tuple has the same backend');
          const listing = await lab.namespaces.must('lb', 'conntrack', ['-L', '-p', 'tcp']);
          const entries = listing.split('\n').filter((line) => line.startsWith('tcp'));
          assert.ok(entries.length <= TUPLES, `${entries.length} entries of ${TUPLES} tuples`);
          const seconds = entries.map((line) => Number(/^tcp\s+6 (\d+)/.exec(line)?.[1]));
          assert.ok(Math.max(0, ...seconds) <= 5, listing);
        });
      }
    }
  }
});
