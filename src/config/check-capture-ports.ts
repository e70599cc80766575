import type { CaptureOptions } from '../model/capture.js';
import {
  formatPortSet,
  parsePortSet,
  portSetContains,
  portSetSize,
  portSetsMeet,
  type PortSet,
} from '../model/port-set.js';
import { addressesOverlap } from './addresses-overlap.js';
import type { BoundRule } from './bind-rules.js';
import type { Draft } from './draft.js';
import { error, note, warning, type Issue, type Path } from './finding.js';
import { ownListens } from './own-listeners.js';

const CAPTURE: Path = ['dataPlane', 'capture'];
const PORT: Path = [...CAPTURE, 'port'];
const EXCLUDED_PORTS: Path = [...CAPTURE, 'excludedPorts'];

/** Linux's default net.ipv4.ip_local_port_range: what the kernel chooses source ports from. */
const EPHEMERAL_PORTS: PortSet = parsePortSet('32768-60999') ?? [];

/** ssh's, as registered with IANA. */
const SSH_PORT = 22;

/** Fewer ports than this are as well served by a socket each. */
const FEW_PORTS = 16;

/** Ports that capture needs, must leave alone, or is not worth its while for. */
export function capturePortIssues(
  draft: Draft,
  capture: CaptureOptions,
  rules: readonly BoundRule[],
): readonly Issue[] {
  return [
    ...privatePortIssues(draft, capture),
    ...anyPortIssues(draft, rules),
    ...sshIssues(draft, capture, rules),
    ...fewPortsNotes(rules),
  ];
}

/** The private sockets' ports are closed to everybody else on the whole machine. */
function privatePortIssues(draft: Draft, { port }: CaptureOptions): readonly Issue[] {
  const last = port + Math.max(1, draft.root.dataPlane.workers) - 1;
  const taken: PortSet = [{ first: port, last }];
  const text = formatPortSet(taken);
  const own = ownListens(draft)
    .filter((listen) => portSetContains(taken, listen.port))
    .map(({ what, path, port: found }) =>
      error('LB_CAPTURE_PORT', path, `Capture needs port ${found} itself, so ${what} cannot have it`, {
        found: String(found),
        expected: `a port outside ${text}`,
      }),
    );
  const pools = draft.pools
    .filter(({ value }) => portSetsMeet(taken, value.sourcePorts))
    .map(({ value }) =>
      error('LB_CAPTURE_PORT', PORT, `Pool "${value.name}" connects from ports that capture needs itself`, {
        found: text,
        expected: `ports outside the pool's sourcePorts, ${formatPortSet(value.sourcePorts)}`,
        reason: 'Answers to those source ports would be refused',
      }),
    );
  const issues = [...own, ...pools];
  if (pools.length > 0 || !portSetsMeet(taken, EPHEMERAL_PORTS)) return issues;
  return [
    ...issues,
    warning('LB_CAPTURE_PORT', PORT, 'The kernel chooses source ports that capture needs itself', {
      found: text,
      expected: `ports outside net.ipv4.ip_local_port_range, by default ${formatPortSet(EPHEMERAL_PORTS)}`,
      reason: 'Answers to those source ports would be refused, those of other programs too',
    }),
  ];
}

/** With a socket a port, port 0 finds one that is free. With capture all look free. */
function anyPortIssues({ root }: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  const listens = [
    { path: ['metrics', 'listen'], at: root.metrics?.listen },
    { path: ['admin', 'http'], at: root.admin?.http },
  ];
  return listens.flatMap(({ path, at }) => {
    if (at?.port !== 0) return [];
    const rule = rules.find(
      ({ haPorts, protocols, frontend }) =>
        haPorts && protocols.includes('tcp') && addressesOverlap(at.address, frontend.value.address),
    );
    if (rule === undefined) return [];
    return [
      error('LB_CAPTURE_PORT', path, `Any free port may be one that rule "${rule.input.name}" captures`, {
        found: '0',
        expected: 'a port, which HA-ports rules then leave alone',
      }),
    ];
  });
}

/** Excluded ports are not among those of an HA-ports rule. */
function sshIssues(
  draft: Draft,
  { excludedPorts }: CaptureOptions,
  rules: readonly BoundRule[],
): readonly Issue[] {
  const rule = rules.find(
    ({ haPorts, protocols, ports }) =>
      haPorts && protocols.includes('tcp') && portSetContains(ports, SSH_PORT),
  );
  if (rule === undefined || !draft.given(EXCLUDED_PORTS)) return [];
  const { name, address } = rule.frontend.value;
  return [
    warning('LB_CAPTURE_SSH', EXCLUDED_PORTS, `Rule "${rule.input.name}" captures tcp port 22`, {
      found: formatPortSet(excludedPorts),
      expected: '22 among them, or another way into this machine',
      reason: `Unless something listens there at the start, ssh to ${address.text} (frontend "${name}") goes to a backend`,
    }),
  ];
}

function fewPortsNotes(rules: readonly BoundRule[]): readonly Issue[] {
  const count = rules.reduce((sum, { ports }) => sum + portSetSize(ports), 0);
  if (count === 0 || count >= FEW_PORTS) return [];
  return [
    note(
      'LB_CAPTURE_FEW',
      CAPTURE,
      `Capture is of little use for ${count} ${count === 1 ? 'port' : 'ports'}`,
      {
        expected: 'no "capture", which needs neither rights nor nftables',
        atKey: true,
      },
    ),
  ];
}
