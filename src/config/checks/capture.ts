import {
  cidrContains,
  cidrsOverlap,
  isLoopback,
  isWildcard,
  parseCidr,
  type Cidr,
  type IpAddress,
} from '../../model/address.js';
import { captureRoom } from '../../model/capture.js';
import type { Frontend, Rule } from '../../model/configuration.js';
import {
  formatPortSet,
  portSetContains,
  portSetSize,
  portSetsMeet,
  type PortSet,
} from '../../model/ports.js';
import type { Path } from '../findings.js';
import { addressesOverlap, ownListens, type Draft } from '../resolve.js';
import type { RootInput } from '../schema.js';
import { error, note, quoted, warning } from './check.js';
import { EPHEMERAL_PORTS } from './general.js';

/** Of `captureAddress`. */
const PRIVATE6 = parseCidr('fd68:6170:6f72:7473::/64');
const CLASS_E = parseCidr('240.0.0.0/4');
const MULTICAST = parseCidr('224.0.0.0/4');

/** ssh's, as registered with IANA. */
const SSH_PORT = 22;

/** Fewer ports than this are as well served by a socket each. */
const FEW_PORTS = 16;

const SLOT = 'Every frontend takes a slot, which is a /16';
const ORDINARY_BLOCK = 'an IPv4 block from /4 to /16 that nothing else uses, such as "240.0.0.0/4"';

type Capture = NonNullable<RootInput['dataPlane']['capture']>;

/** The options of capture, where something is captured. */
function captures({ plane, root }: Draft): readonly Capture[] {
  const { capture } = root.dataPlane;
  return capture === undefined || plane === 'kernel' ? [] : [capture];
}

function capturedFrontends(draft: Draft): readonly Frontend[] {
  return captures(draft).flatMap(() => draft.frontends);
}

/** Loopback frontends whose ports an HA-ports rule captures. */
function capturedLoopback(common: boolean) {
  // Everything on a machine uses 127.0.0.1 and ::1; another loopback address was most likely chosen for this.
  const isCommon = ({ family, text }: IpAddress) => family === 6 || text === '127.0.0.1';
  return (draft: Draft) =>
    capturedFrontends(draft)
      .filter(({ address }) => isLoopback(address) && isCommon(address) === common)
      .flatMap((thing) => {
        const wide = draft.rules.find(({ haPorts, frontend }) => haPorts && frontend === thing);
        return wide === undefined ? [] : [{ thing, wide }];
      });
}

function overlaps(block: Cidr, other: Cidr | undefined): boolean {
  return other !== undefined && cidrsOverlap(block, other);
}

function isSlotted({ address, prefixLength }: Cidr): boolean {
  return address.family === 4 && prefixLength >= 4 && prefixLength <= 16;
}

/** Whether ordinary addresses can be taken from the block, a /16 for each frontend. */
function isOrdinary(block: Cidr): boolean {
  return isSlotted(block) && captureRoom(block) > 0 && !overlaps(block, MULTICAST);
}

/** The private sockets' ports, which are closed to everything else on the whole machine. */
function privatePorts({ root }: Draft, { port }: Capture): PortSet {
  return [{ first: port, last: port + Math.max(1, root.dataPlane.workers) - 1 }];
}

function ownListensOnPrivatePorts(draft: Draft) {
  return captures(draft).flatMap((capture) => {
    const taken = privatePorts(draft, capture);
    const own = ownListens(draft.root).filter(({ port }) => portSetContains(taken, port));
    return own.map(({ what, path, port }) => ({ thing: draft.root, at: path, what, port, taken }));
  });
}

function poolsOnPrivatePorts(draft: Draft) {
  return captures(draft).flatMap((thing) => {
    const taken = privatePorts(draft, thing);
    const pools = draft.pools.filter(({ sourcePorts }) => portSetsMeet(taken, sourcePorts));
    return pools.map((pool) => ({ thing, pool, taken }));
  });
}

/** Addresses that packets have or go to, and that stand for captured ports. */
function privateAddresses(draft: Draft) {
  return captures(draft).flatMap(({ block }) =>
    addressesOf(draft).flatMap(([at, address]) => {
      const taken = address?.family === 4 ? block : PRIVATE6;
      if (address === undefined || taken === undefined || !cidrContains(taken, address)) return [];
      return [{ thing: draft.root, at, address, taken }];
    }),
  );
}

function addressesOf(draft: Draft): readonly (readonly [Path, IpAddress | undefined])[] {
  const { root, frontends, pools, probes, path } = draft;
  return [
    ...frontends.map((frontend) => [path(frontend, 'address'), frontend.address] as const),
    ...pools.flatMap((pool) => [
      ...pool.sourceAddresses.map((one, index) => [path(pool, 'sourceAddresses', index), one] as const),
      ...pool.backends.flatMap((backend) => [
        [path(backend, 'address'), backend.address] as const,
        ...Object.entries(backend.floatingAddresses).map(
          ([name, address]) => [path(backend, 'floatingAddresses', name), address] as const,
        ),
      ]),
    ]),
    ...probes.map((probe) => [path(probe, 'sourceAddress'), probe.sourceAddress] as const),
    [['metrics', 'listen'], root.metrics?.listen.address],
    [['admin', 'http'], root.admin?.http?.address],
  ];
}

/** Own listeners on any free port. With a socket a port they find one that is free; with capture all look free. */
function listensOnAnyPort(draft: Draft) {
  const { root: thing } = draft;
  const listens = [
    { thing, at: ['metrics', 'listen'], listen: thing.metrics?.listen },
    { thing, at: ['admin', 'http'], listen: thing.admin?.http },
  ];
  return captures(draft).flatMap(() => listens.filter(({ listen }) => listen?.port === 0));
}

/** Excluded ports are not among those of an HA-ports rule. */
function capturesSsh({ haPorts, protocols, ports }: Rule): boolean {
  return haPorts && protocols.includes('tcp') && portSetContains(ports, SSH_PORT);
}

/** What cannot be captured, and what the operator may not have thought of. */
export const CAPTURE_CHECKS = [
  error('LB_CAPTURE_WILDCARD', capturedFrontends, 'address', {
    when: ({ address }) => isWildcard(address),
    say: ({ name }) => `Frontend "${name}" stands for every address of this machine`,
    found: ({ address }) => quoted(address),
    expected: 'a frontend for each address whose ports are to be captured',
    reason: "Capture takes every port of an address away from this machine's own services",
  }),
  error('LB_CAPTURE_ADDRESS', capturedFrontends, 'address', {
    when: ({ address: { zone } }) => zone !== undefined,
    say: ({ name }) => `Frontend "${name}" has an address of one interface only`,
    found: ({ address }) => quoted(address),
    expected: 'an address that is not link-local',
    reason: 'The kernel steers by address alone, and other interfaces may have the same link-local one',
  }),
  ...[true, false].map((isCommon) =>
    (isCommon ? warning : note)('LB_CAPTURE_LOOPBACK', capturedLoopback(isCommon), 'address', {
      say: ({ wide }) => `Rule "${wide.name}" captures ports of loopback`,
      found: ({ thing }) => quoted(thing.address),
      expected: isCommon
        ? 'an address that no service of this machine is asked at'
        : 'no local services there',
      reason: 'Only ports with a listener at the time are left alone: what starts later is never reached',
    }),
  ),
  error('LB_VALUE', captures, 'block', {
    when: ({ block }) => !isSlotted(block),
    say: 'The block must be IPv4, /4 to /16',
    found: ({ block }) => quoted(block),
    expected: ORDINARY_BLOCK,
    reason: SLOT,
  }),
  error('LB_VALUE', captures, 'block', {
    when: ({ block }) => isSlotted(block) && !isOrdinary(block),
    say: 'The block must hold ordinary addresses',
    found: ({ block }) => quoted(block),
    expected: ORDINARY_BLOCK,
    reason: '0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 255.0.0.0/8 have meanings of their own',
  }),
  note('LB_CAPTURE_BLOCK', captures, 'block', {
    when: ({ block }) => isOrdinary(block) && !overlaps(block, CLASS_E),
    say: ({ block }) => `Parts of ${block.text} become addresses of this machine`,
    found: ({ block }) => quoted(block),
    expected: 'a block that no client, backend or route uses',
    reason: 'Hosts elsewhere that have such an address can no longer be reached',
  }),
  error('LB_CAPTURE_ADDRESS', privateAddresses, '', {
    say: ({ taken }) => `Addresses in ${taken.text} stand for captured ports`,
    found: ({ address }) => quoted(address),
    expected: ({ taken }) => `an address outside ${taken.text}`,
  }),
  error('LB_CAPTURE_BLOCK', captures, 'block', {
    when: ({ block }, { frontends }) => {
      const count = new Set(frontends.map(({ address }) => address.text)).size;
      const room = captureRoom(block);
      const places = room === 1 ? '1 frontend' : `${room} frontends`;
      return isOrdinary(block) && count > room && `room for ${places}, not for ${count}`;
    },
    say: (_, room) => `The block has ${room}`,
    found: ({ block }) => quoted(block),
    expected: 'a larger block, at most a /4',
    reason: SLOT,
  }),
  error('LB_CAPTURE_PORT', ownListensOnPrivatePorts, '', {
    say: ({ port, what }) => `Capture needs port ${port} itself, so ${what} cannot have it`,
    found: ({ port }) => String(port),
    expected: ({ taken }) => `a port outside ${formatPortSet(taken)}`,
  }),
  error('LB_CAPTURE_PORT', poolsOnPrivatePorts, 'port', {
    say: ({ pool }) => `Pool "${pool.name}" connects from ports that capture needs itself`,
    found: ({ taken }) => formatPortSet(taken),
    expected: ({ pool }) => `ports outside the pool's sourcePorts, ${formatPortSet(pool.sourcePorts)}`,
    reason: 'Answers to those source ports would be refused',
  }),
  warning('LB_CAPTURE_PORT', captures, 'port', {
    when: (capture, draft) => {
      const taken = privatePorts(draft, capture);
      const isTold = poolsOnPrivatePorts(draft).length > 0;
      return !isTold && portSetsMeet(taken, EPHEMERAL_PORTS) && formatPortSet(taken);
    },
    say: 'The kernel chooses source ports that capture needs itself',
    found: (_, taken) => taken,
    expected: `ports outside net.ipv4.ip_local_port_range, by default ${formatPortSet(EPHEMERAL_PORTS)}`,
    reason: 'Answers to those source ports would be refused, those of other programs too',
  }),
  error('LB_CAPTURE_PORT', listensOnAnyPort, '', {
    when: ({ listen }, { rules }) =>
      rules.find(
        ({ haPorts, protocols, frontend }) =>
          haPorts &&
          protocols.includes('tcp') &&
          listen &&
          addressesOverlap(listen.address, frontend.address),
      ),
    say: (_, rule) => `Any free port may be one that rule "${rule.name}" captures`,
    found: '0',
    expected: 'a port, which HA-ports rules then leave alone',
  }),
  warning('LB_CAPTURE_SSH', captures, 'excludedPorts', {
    when: (capture, draft) => draft.given(capture, 'excludedPorts') && draft.rules.find(capturesSsh),
    say: (_, rule) => `Rule "${rule.name}" captures tcp port 22`,
    found: ({ excludedPorts }) => formatPortSet(excludedPorts),
    expected: '22 among them, or another way into this machine',
    reason: (_, { frontend: { name, address } }) =>
      `Unless something listens there at the start, ssh to ${address.text} (frontend "${name}") goes to a backend`,
  }),
  note('LB_CAPTURE_FEW', captures, '@', {
    when: (_, { rules }) => {
      const count = rules.reduce((sum, { ports }) => sum + portSetSize(ports), 0);
      return count > 0 && count < FEW_PORTS && count;
    },
    say: (_, count) => `Capture is of little use for ${count} ${count === 1 ? 'port' : 'ports'}`,
    expected: 'no "capture", which needs neither rights nor nftables',
  }),
];
