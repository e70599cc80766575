import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import { ipAddress } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { Distribution } from '../../src/model/configuration.js';
import { NONE_EXCLUDED } from '../../src/selection/picker.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  BACKEND_PORTS,
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const FLOWS = 1000;
const HOSTS = { 4: '10.2.0.', 6: 'fd02::' } as const;
const PORTS = BACKEND_PORTS.filter((port) => port !== 50000);

function configuration(distribution: Distribution, family: 4 | 6): object {
  const backends = ['11', '12', '13'].map((host, index) => ({
    name: `b${index + 1}`,
    address: `${HOSTS[family]}${host}`,
  }));
  return {
    seed: 0x12345678,
    frontends: [{ name: 'hub', address: FRONTEND[family] }],
    backendPools: [{ name: 'nvas', backends }],
    rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true, distribution }],
  };
}

describe('natSetup() places flows as explain says', { skip }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
    client = lab.client();
  });
  after(() => lab.close());

  /** All pairs of a client's port and a frontend's port once. */
  function flowsOf(protocol: 'tcp' | 'udp', family: 4 | 6, count: number): ClientFlow[] {
    return Array.from({ length: count }, (_, index) => ({
      protocol,
      host: FRONTEND[family],
      port: PORTS[index % PORTS.length] ?? 0,
      source: CLIENTS[family][index % 4] ?? '',
      sourcePort: 20_000 + index,
    }));
  }

  function predicted(state: ForwardingState, flow: ClientFlow): string {
    const tuple = {
      protocol: flow.protocol,
      source: ipAddress(flow.source ?? ''),
      sourcePort: flow.sourcePort ?? 0,
      destination: ipAddress(flow.host),
      destinationPort: flow.port,
    };
    const result = states.picker.pick(state, tuple, NONE_EXCLUDED);
    if (result.kind !== 'picked') return result.kind;
    const { backend } = state.views[result.viewIndex]?.backends[result.backendIndex] ?? {};
    return backend?.name ?? '';
  }

  const cases = [
    ['five-tuple', 4, FLOWS],
    ['five-tuple', 6, FLOWS],
    ['source-ip-protocol', 4, 48],
    ['source-ip-protocol', 6, 48],
    ['source-ip', 4, 48],
    ['source-ip', 6, 48],
  ] as const;
  for (const [distribution, family, count] of cases) {
    test(`${count} of ${count} TCP and UDP flows each, ${distribution}, IPv${family}`, async () => {
      const state = states.state(configuration(distribution, family));
      await lab.load(natSetup(compileProgram(state)));
      for (const protocol of ['tcp', 'udp'] as const) {
        await lab.forget();
        const flows = flowsOf(protocol, family, count);
        const answers = await client.once(...flows);
        const wrong = flows.flatMap((flow, index) => {
          const expected = `${predicted(state, flow)} ${flow.source} ${flow.sourcePort} ${flow.port}`;
          return answers[index] === expected ? [] : [{ expected, got: answers[index] }];
        });
        assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${count} ${protocol} flows`);
        if (distribution === 'five-tuple') assert.equal(new Set(answers.map(whoAnswered)).size, 3);
      }
    });
  }
});
