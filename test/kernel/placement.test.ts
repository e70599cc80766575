import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { KernelOptions } from '../../src/model/configuration.js';
import { campaign } from '../support/campaign.js';
import { HUB_MODES, SERVER_PORTS, useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { BACKENDS, CLIENTS, FAMILIES, FRONTEND } from '../support/topologies.js';
import { makeFlows, names, type Traffic } from '../support/traffic.js';

/** What a case has in the rule and the options, and how many flows of each protocol are asked. */
interface Case {
  readonly name: string;
  readonly rule?: object;
  readonly options?: Partial<KernelOptions>;
  readonly flows: number;
}

/** Of each protocol and family. */
const FIVE_TUPLES = campaign({ share: { nat: 300, floating: 150 }, whole: { nat: 1000, floating: 300 } });
const STICKY: readonly Case[] = [
  { name: 'source-ip-protocol', rule: { distribution: 'source-ip-protocol' }, flows: 48 },
  { name: 'source-ip', rule: { distribution: 'source-ip' }, flows: 48 },
];
const CASES: Readonly<Record<(typeof HUB_MODES)[number], readonly Case[]>> = {
  nat: [{ name: 'five-tuple', flows: FIVE_TUPLES.nat }, ...STICKY],
  'floating-l2': [
    { name: 'five-tuple, pinned', flows: FIVE_TUPLES.floating },
    { name: 'five-tuple, stateless', options: { flowState: 'stateless' }, flows: FIVE_TUPLES.floating },
  ],
  'floating-routed': [
    { name: 'five-tuple, pinned', flows: FIVE_TUPLES.floating },
    { name: 'five-tuple, stateless', options: { flowState: 'stateless' }, flows: FIVE_TUPLES.floating },
  ],
};

for (const mode of HUB_MODES) {
  describe(`the kernel places flows as explain says, ${mode}`, { skip: whyNoNamespaces() }, () => {
    const kernel = useHub(mode);
    let client: Traffic;
    before(() => {
      client = kernel.lab.host('client').traffic();
    });

    for (const { name, rule = {}, options = {}, flows: count } of CASES[mode]) {
      for (const family of FAMILIES) {
        test(`${count} of ${count} TCP and UDP flows each, ${name}, IPv${family}`, async () => {
          await kernel.clear();
          const state = await kernel.load(
            { families: [family], rule, top: { seed: 0x12345678 } },
            {},
            { options },
          );
          for (const protocol of ['tcp', 'udp'] as const) {
            await kernel.forget();
            const flows = makeFlows(count, {
              ...{ protocol, host: FRONTEND[family], port: SERVER_PORTS },
              ...{ source: CLIENTS[family], sourcePort: 20_000 },
            });
            const answers = await client.ask(flows);
            const wrong = flows.flatMap((flow, index) => {
              const { by, client: source, clientPort: sourcePort, port } = answers[index]!;
              const expected = { ...flow, by: kernel.states.predict(state, flow) };
              const isRight = Object.entries({ by, source, sourcePort, port }).every(
                ([key, value]) => expected[key as 'by'] === value,
              );
              return isRight ? [] : [{ expected, got: answers[index] }];
            });
            assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${count} ${protocol} flows`);
            if (name.startsWith('five-tuple')) assert.equal(new Set(names(answers)).size, BACKENDS.length);
          }
        });
      }
    }
  });
}
