import assert from 'node:assert/strict';
import type { Configuration } from '../../../src/model/configuration.js';
import type { Finding } from '../../../src/config/findings.js';
import { parseConfiguration, type ParseResult, type Surroundings } from '../../../src/config/load.js';

/** JSON that tests change at will. */
export interface Example {
  [key: string]: unknown;
  frontends: Record<string, unknown>[];
  probes: Record<string, unknown>[];
  backendPools: { [key: string]: unknown; backends: Record<string, unknown>[] }[];
  rules: Record<string, unknown>[];
}

/** One ordinary TCP rule, 443 to 6443, without a single finding under either `compat`. */
export function example(change: (raw: Example) => void = () => undefined): Example {
  const raw: Example = {
    frontends: [{ name: 'hub', address: '10.0.0.1' }],
    probes: [{ name: 'alive', protocol: 'http', port: 9000 }],
    backendPools: [{ name: 'nvas', backends: [{ address: '10.0.1.1' }, { address: '10.0.1.2' }] }],
    rules: [
      {
        name: 'web',
        frontend: 'hub',
        backendPool: 'nvas',
        probe: 'alive',
        protocol: 'tcp',
        frontendPort: 443,
        backendPort: 6443,
      },
    ],
  };
  change(raw);
  return raw;
}

/** As example, its rule an HA-ports rule on 8000-8099. Without findings too. */
export function haExample(change: (raw: Example) => void = () => undefined): Example {
  return example((raw) => {
    raw.rules = [
      {
        name: 'ha',
        frontend: 'hub',
        backendPool: 'nvas',
        probe: 'alive',
        haPorts: true,
        listenPorts: '8000-8099',
      },
    ];
    change(raw);
  });
}

export function parse(raw: unknown, surroundings?: Surroundings): ParseResult {
  return parseConfiguration(JSON.stringify(raw, null, 2), surroundings);
}

/** The configuration; fails the test where there are errors. */
export function configurationOf(raw: unknown, surroundings?: Surroundings): Configuration {
  const result = parse(raw, surroundings);
  assert.ok(result.ok, JSON.stringify(result.findings, null, 1));
  return result.configuration;
}

/** `error LB_LOOP rules[0].backendPort`, one for each finding. */
export function brief(raw: unknown, surroundings?: Surroundings): readonly string[] {
  return parse(raw, surroundings).findings.map(
    ({ severity, code, path }: Finding) => `${severity} ${code} ${path}`,
  );
}

/** The one finding with this code; fails the test where there is none or more. */
export function only(raw: unknown, code: string, surroundings?: Surroundings): Finding {
  const found = parse(raw, surroundings).findings.filter((finding) => finding.code === code);
  const [finding] = found;
  assert.ok(finding !== undefined && found.length === 1, JSON.stringify(brief(raw, surroundings)));
  return finding;
}

/** Those findings of `raw` that have this code, in brief. */
export function withCode(raw: unknown, code: string, surroundings?: Surroundings): readonly string[] {
  return brief(raw, surroundings).filter((line) => line.split(' ')[1] === code);
}
