import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ipAddress } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding-state.js';
import type { KernelMode } from '../../src/model/kernel-options.js';
import { NONE_EXCLUDED } from '../../src/selection/picker.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const HOSTS = { 4: '10.2.0.', 6: 'fd02::' } as const;

function configuration(options: {
  readonly backends?: readonly string[];
  readonly rule?: object;
  readonly weights?: Readonly<Record<string, number>>;
}): object {
  const names = options.backends ?? BACKENDS;
  const pool = (family: 4 | 6): object => ({
    name: `v${family}`,
    backends: names.map((name) => ({
      name,
      address: `${HOSTS[family]}1${name.slice(1)}`,
      weight: options.weights?.[name] ?? 1,
    })),
  });
  const rule = (family: 4 | 6): object => ({
    ...{ name: `all${family}`, frontend: `hub${family}`, backendPool: `v${family}`, haPorts: true },
    ...options.rule,
  });
  return {
    seed: 0x12345678,
    frontends: [4, 6].map((family) => ({ name: `hub${family}`, address: FRONTEND[family as 4 | 6] })),
    backendPools: [pool(4), pool(6)],
    rules: [rule(4), rule(6)],
  };
}

function flow(protocol: 'tcp' | 'udp', family: 4 | 6, index: number): ClientFlow {
  const source = CLIENTS[family][index % 4] ?? '';
  return { protocol, host: FRONTEND[family], port: PORT, source, sourcePort: 20_000 + index };
}

function flows(protocol: 'tcp' | 'udp', family: 4 | 6, count: number, first = 0): ClientFlow[] {
  return Array.from({ length: count }, (_, index) => flow(protocol, family, first + index));
}

const MODES: readonly KernelMode[] = ['floating-l2', 'floating-routed'];

for (const mode of MODES) {
  describe(`floatingSetup(), ${mode}`, { skip }, () => {
    let lab: FloatingLab;
    let client: LabClient;
    let states: KernelStates;

    before(async () => {
      states = await KernelStates.create();
      lab = await FloatingLab.create();
      client = lab.client();
    });
    after(() => lab.close());

    function state(
      raw: object,
      conditions: Parameters<KernelStates['state']>[2] = {},
      flowState: 'pinned' | 'stateless' = 'pinned',
    ): ForwardingState {
      const device = mode === 'floating-l2' ? { interface: DEVICE } : {};
      return states.state(raw, { mode, flowState, ...device }, conditions);
    }

    function predicted(of: ForwardingState, one: ClientFlow): string {
      const tuple = {
        protocol: one.protocol,
        source: ipAddress(one.source ?? ''),
        sourcePort: one.sourcePort ?? 0,
        destination: ipAddress(one.host),
        destinationPort: one.port,
      };
      const result = states.picker.pick(of, tuple, NONE_EXCLUDED);
      if (result.kind !== 'picked') return result.kind;
      return of.views[result.viewIndex]?.backends[result.backendIndex]?.backend.name ?? '';
    }

    for (const flowState of ['pinned', 'stateless'] as const) {
      test(`300 TCP and UDP flows each, IPv4 and IPv6, go where explain says, ${flowState}`, async () => {
        await lab.clear();
        const one = state(configuration({}), {}, flowState);
        await lab.load(one);
        for (const family of [4, 6] as const) {
          for (const protocol of ['tcp', 'udp'] as const) {
            const sent = flows(protocol, family, 300);
            const answers = await client.once(...sent);
            const wrong = sent.flatMap((each, index) => {
              const expected = `${predicted(one, each)} ${each.source} ${each.sourcePort} ${PORT}`;
              return answers[index]?.startsWith(expected) === true ? [] : [{ expected, got: answers[index] }];
            });
            assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of 300 ${protocol}${family}`);
            assert.equal(new Set(answers.map(whoAnswered)).size, 3);
          }
        }
      });
    }
  });
}
