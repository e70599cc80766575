import type { CapturePlan } from '../../../../src/model/capture.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { configurationOf } from '../../../support/state-factory.js';

export const FRONTENDS = [
  { name: 'four', address: '10.0.0.9' },
  { name: 'six', address: '2001:db8::9' },
];

export function haRule(name: string, frontend: string, more: object = {}): object {
  return { name, frontend, backendPool: 'nvas', haPorts: true, listenPorts: '8000-8099', ...more };
}

export const WEB_RULE = {
  ...{ name: 'web', frontend: 'four', backendPool: 'nvas' },
  ...{ protocol: 'tcp', frontendPort: 9000, backendPort: 80 },
};

/** As an operator writes it: two frontends, 100 ports each, one of them with a TCP port more. */
export function capturedConfig(overrides: object = {}): object {
  return {
    dataPlane: { workers: 1, instance: 'test', capture: {} },
    frontends: FRONTENDS,
    backendPools: [
      { name: 'nvas', backends: [{ address: '10.1.0.1' }, { address: '10.1.0.2' }] },
      { name: 'nvas6', backends: [{ address: '2001:db8:1::1' }, { address: '2001:db8:1::2' }] },
    ],
    rules: [
      haRule('all', 'four', { idleTimeout: { udp: '90s' } }),
      haRule('all6', 'six', { backendPool: 'nvas6' }),
      WEB_RULE,
    ],
    ...overrides,
  };
}

export function captured(overrides: object = {}): {
  readonly configuration: Configuration;
  readonly plan: CapturePlan;
} {
  const configuration = configurationOf(capturedConfig(overrides));
  const { udp, port, block } = configuration.capture!;
  return { configuration, plan: { udp, port, block } };
}
