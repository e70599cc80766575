import {
  cidrContains,
  cidrsOverlap,
  isLoopback,
  isWildcard,
  parseCidr,
  type Cidr,
  type IpAddress,
} from '../../model/address.js';
import { captureRoom, type CaptureOptions } from '../../model/capture.js';
import {
  formatPortSet,
  parsePortSet,
  portSetContains,
  portSetSize,
  portSetsMeet,
  type PortSet,
} from '../../model/ports.js';
import { addressesOverlap, ownListens, type BoundRule } from '../bind-rules.js';
import type { Draft, Located } from '../draft.js';
import { error, note, warning, type Issue, type Path } from '../findings.js';

const BLOCK: Path = ['dataPlane', 'capture', 'block'];
/** Of `captureAddress`. */
const PRIVATE6 = parseCidr('fd68:6170:6f72:7473::/64');
const CLASS_E = parseCidr('240.0.0.0/4');
const MULTICAST = parseCidr('224.0.0.0/4');

/** What cannot be captured, and what the operator may not have thought of. Nothing where nothing is captured, or could be. */
export function captureIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  const { capture } = draft.root.dataPlane;
  if (capture === undefined || draft.plane.kind === 'kernel') return [];
  return [
    ...draft.frontends.flatMap(({ path, value: { name, address } }) =>
      frontendIssues([...path, 'address'], name, address, rules),
    ),
    ...blockIssues(capture.block),
    ...addressesOf(draft).flatMap((located) => privateIssues(located, capture.block)),
    ...roomIssues(draft, capture.block),
    ...capturePortIssues(draft, capture, rules),
  ];
}

function frontendIssues(
  path: Path,
  name: string,
  address: IpAddress,
  rules: readonly BoundRule[],
): readonly Issue[] {
  const found = `"${address.text}"`;
  if (isWildcard(address)) {
    return [
      error('LB_CAPTURE_WILDCARD', path, `Frontend "${name}" stands for every address of this machine`, {
        found,
        expected: 'a frontend for each address whose ports are to be captured',
        reason: "Capture takes every port of an address away from this machine's own services",
      }),
    ];
  }
  if (address.zone !== undefined) {
    return [
      error('LB_CAPTURE_ADDRESS', path, `Frontend "${name}" has an address of one interface only`, {
        found,
        expected: 'an address that is not link-local',
        reason: 'The kernel steers by address alone, and other interfaces may have the same link-local one',
      }),
    ];
  }
  const wide = rules.find(({ haPorts, frontend }) => haPorts && frontend.value.address.text === address.text);
  if (wide === undefined || !isLoopback(address)) return [];
  // Everything on a machine uses 127.0.0.1 and ::1; another loopback address was most likely chosen for this.
  const isCommon = address.family === 6 || address.text === '127.0.0.1';
  const tell = isCommon ? warning : note;
  return [
    tell('LB_CAPTURE_LOOPBACK', path, `Rule "${wide.input.name}" captures ports of loopback`, {
      found,
      expected: isCommon
        ? 'an address that no service of this machine is asked at'
        : 'no local services there',
      reason: 'Only ports with a listener at the time are left alone: what starts later is never reached',
    }),
  ];
}

function blockIssues(block: Cidr): readonly Issue[] {
  const found = `"${block.text}"`;
  const expected = 'an IPv4 block from /4 to /16 that nothing else uses, such as "240.0.0.0/4"';
  const { family } = block.address;
  if (family === 6 || block.prefixLength < 4 || block.prefixLength > 16) {
    const reason = 'Every frontend takes a slot, which is a /16';
    return [error('LB_VALUE', BLOCK, 'The block must be IPv4, /4 to /16', { found, expected, reason })];
  }
  if (captureRoom(block) === 0 || overlaps(block, MULTICAST)) {
    const reason = '0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 255.0.0.0/8 have meanings of their own';
    return [error('LB_VALUE', BLOCK, 'The block must hold ordinary addresses', { found, expected, reason })];
  }
  if (overlaps(block, CLASS_E)) return [];
  return [
    note('LB_CAPTURE_BLOCK', BLOCK, `Parts of ${block.text} become addresses of this machine`, {
      found,
      expected: 'a block that no client, backend or route uses',
      reason: 'Whoever has such an address elsewhere cannot be reached any more',
    }),
  ];
}

function privateIssues({ path, value: address }: Located<IpAddress>, block: Cidr): readonly Issue[] {
  const taken = address.family === 4 ? block : PRIVATE6;
  if (taken === undefined || !cidrContains(taken, address)) return [];
  return [
    error('LB_CAPTURE_ADDRESS', path, `Addresses in ${taken.text} stand for captured ports`, {
      found: `"${address.text}"`,
      expected: `an address outside ${taken.text}`,
    }),
  ];
}

function roomIssues({ frontends }: Draft, block: Cidr): readonly Issue[] {
  if (blockIssues(block).some(({ severity }) => severity === 'error')) return [];
  const room = captureRoom(block);
  const count = new Set(frontends.map(({ value }) => value.address.text)).size;
  if (count <= room) return [];
  const places = room === 1 ? '1 frontend' : `${room} frontends`;
  return [
    error('LB_CAPTURE_BLOCK', BLOCK, `The block has room for ${places}, not for ${count}`, {
      found: `"${block.text}"`,
      expected: 'a larger block, at most a /4',
      reason: 'Every frontend takes a slot, which is a /16',
    }),
  ];
}

/** Every address that packets have or go to. */
function addressesOf({ root, frontends, pools, probes }: Draft): readonly Located<IpAddress>[] {
  const at = (path: Path, value: IpAddress | undefined): Located<IpAddress>[] =>
    value === undefined ? [] : [{ path, value }];
  return [
    ...frontends.flatMap(({ path, value }) => at([...path, 'address'], value.address)),
    ...pools.flatMap(({ path, value: pool }) => [
      ...pool.sourceAddresses.flatMap((address, index) => at([...path, 'sourceAddresses', index], address)),
      ...pool.backends.flatMap((backend, index) => [
        ...at([...path, 'backends', index, 'address'], backend.address),
        ...Object.entries(backend.floatingAddresses).flatMap(([name, address]) =>
          at([...path, 'backends', index, 'floatingAddresses', name], address),
        ),
      ]),
    ]),
    ...probes.flatMap(({ path, value }) => at([...path, 'sourceAddress'], value.sourceAddress)),
    ...at(['metrics', 'listen'], root.metrics?.listen.address),
    ...at(['admin', 'http'], root.admin?.http?.address),
  ];
}

function overlaps(block: Cidr, other: Cidr | undefined): boolean {
  return other !== undefined && cidrsOverlap(block, other);
}

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
