import { ipAddress } from '../../../src/model/address.js';
import type { Configuration, Rule } from '../../../src/model/configuration.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { fnv1a } from '../../../src/model/fnv1a.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { configurationOf } from '../../support/state-factory.js';

const rule = { backendPool: 'nvas', probe: 'alive', haPorts: true, listenPorts: '8000-8099' };

/** Two frontends, two rules, one pool, with addresses and address blocks in many places. */
const SAMPLE = {
  frontends: [
    {
      ...{ name: 'hub', address: '127.0.0.1', allow: ['127.0.0.0/8'], deny: ['fd00::/16', '10.1.2.3'] },
      proxyProtocol: { accept: 'any', trustedSources: ['10.0.0.0/8'] },
    },
    { name: 'hub6', address: '::1' },
  ],
  probes: [{ name: 'alive', protocol: 'http', port: 9000, path: '/healthz', sourceAddress: '127.0.0.5' }],
  backendPools: [
    {
      name: 'nvas',
      sourceAddresses: ['127.0.0.2'],
      backends: [
        { name: 'nva-1', address: '127.0.0.11', floatingAddresses: { hub6: 'fd00::99' } },
        { name: 'nva-2', address: '127.0.0.12' },
      ],
    },
  ],
  rules: [
    { name: 'ha-ports', frontend: 'hub', ...rule },
    { name: 'ha-ports6', frontend: 'hub6', ...rule },
  ],
  limits: { tcpFlows: 100, udpFlows: 100, embryonicFlows: 10 },
  metrics: { listen: '127.0.0.1:9902' },
};

export function sampleConfiguration(digest = 'd1'): Configuration {
  return { ...configurationOf(SAMPLE), digest };
}

export function sampleRule(name: string, frontend: string): Rule {
  const { frontends, rules } = sampleConfiguration();
  return { ...rules[0]!, name, frontend: frontends.find((one) => one.name === frontend)! };
}

/** nva-1 up and perhaps being drained, nva-2 down. */
export function sampleState(
  revision: number,
  configuration = sampleConfiguration(),
  isDraining = false,
): ForwardingState {
  const drain = isDraining ? ({ ending: false } as const) : undefined;
  const state = new ForwardingCompiler(fnv1a).compile(configuration, {
    health: ({ name }) => ({ state: name === 'nva-1' ? 'up' : 'down' }),
    override: ({ name }) => ({ drain: name === 'nva-1' ? drain : undefined }),
  });
  return { ...state, revision };
}

export function sampleFlow(id: number, epoch = 1): FlowRecord {
  return {
    id,
    tuple: {
      protocol: 'tcp',
      source: ipAddress('192.0.2.7'),
      sourcePort: 40_000,
      destination: ipAddress('127.0.0.1'),
      destinationPort: 8000,
    },
    rule: 'ha-ports',
    backendId: 'nvas/127.0.0.11',
    backendEndpoint: '127.0.0.11:8000',
    reason: 'retry',
    state: 'established',
    epoch,
    excluded: ['nvas/127.0.0.12'],
    ...{ openedAtMs: 1000, idleMs: 0 },
    ...{ bytesToBackend: 5, packetsToBackend: 1, bytesToClient: 12, packetsToClient: 2 },
  };
}
