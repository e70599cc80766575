import { formatDuration } from '../model/duration.js';
import type { Draft } from './draft.js';
import { error, warning, type Issue, type Path } from './finding.js';
import type { ProbeInput } from './schema-probe.js';

/** Keys that mean something only where HTTP is spoken, and only where TLS is. */
const HTTP_KEYS = [
  'path',
  'host',
  'expectStatus',
  'expectBody',
  'weightFromProbeHeader',
  'explicitAnswerFlips',
] as const;
const TLS_KEYS = ['serverName', 'ca', 'skipVerify'] as const;

/** Ports where an appliance answers its operators, whatever the state of its data path. */
const MANAGEMENT_PORTS: ReadonlyMap<number, string> = new Map([
  [22, 'SSH'],
  [23, 'Telnet'],
  [3389, 'remote desktop'],
]);

/** What hangs together inside one probe. */
export function probeIssues(draft: Draft): readonly Issue[] {
  return draft.probes.flatMap(({ path, value: probe }) => [
    ...strayKeys(path, probe),
    ...timeoutIssues(path, probe),
    ...managementPort(path, probe),
    ...uselessCa(path, probe),
  ]);
}

function strayKeys(path: Path, probe: ProbeInput): Issue[] {
  const stray = [
    ...(probe.protocol === 'tcp' ? HTTP_KEYS : []).map((key) => [key, 'http or https'] as const),
    ...(probe.protocol === 'https' ? [] : TLS_KEYS).map((key) => [key, 'https'] as const),
  ];
  return stray
    .filter(([key]) => probe[key] !== undefined)
    .map(([key, needed]) =>
      error('LB_CONFLICT', [...path, key], `"${key}" needs protocol ${needed}, found ${probe.protocol}`, {
        atKey: true,
        found: probe.protocol,
        expected: needed,
      }),
    );
}

function timeoutIssues(path: Path, { timeout, interval }: ProbeInput): Issue[] {
  if (timeout === undefined || timeout <= interval) return [];
  const found = formatDuration(timeout);
  const expected = `at most the interval, ${formatDuration(interval)}`;
  return [
    error('LB_CONFLICT', [...path, 'timeout'], `The timeout must be ${expected}, found ${found}`, {
      found,
      expected,
      reason: 'A backend is never probed twice at a time',
    }),
  ];
}

function managementPort(path: Path, { port }: ProbeInput): Issue[] {
  const service = MANAGEMENT_PORTS.get(port);
  if (service === undefined) return [];
  return [
    warning('LB_MANAGEMENT_PORT', [...path, 'port'], `Port ${port} is a management port (${service})`, {
      found: String(port),
      expected: 'a port that only answers while the appliance passes traffic',
      reason: 'An appliance that passes no traffic any more often still answers its operators',
    }),
  ];
}

function uselessCa(path: Path, { ca, skipVerify }: ProbeInput): Issue[] {
  if (ca === undefined || skipVerify !== true) return [];
  return [warning('LB_NO_EFFECT', [...path, 'ca'], '"ca" has no effect while "skipVerify" is true')];
}
