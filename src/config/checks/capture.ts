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
import { addressesOverlap, type Draft } from '../resolve.js';
import { LINK_LOCAL_FRONTEND, error, note, warning } from './check.js';
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

/** The options of capture where something is captured, and the ports of its own sockets, closed to all else on the machine. */
function captures({ plane, root }: Draft) {
  const { capture: thing, workers } = root.dataPlane;
  if (thing === undefined || plane === 'kernel') return [];
  const taken: PortSet = [{ first: thing.port, last: thing.port + Math.max(1, workers) - 1 }];
  return [{ ...thing, thing, taken }];
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

function ownListensOnPrivatePorts(draft: Draft) {
  return captures(draft).flatMap(({ taken }) =>
    draft.own.filter(({ ports }) => portSetsMeet(taken, ports)).map((listen) => ({ ...listen, taken })),
  );
}

function poolsOnPrivatePorts(draft: Draft) {
  return captures(draft).flatMap(({ thing, taken }) =>
    draft.pools
      .filter(({ sourcePorts }) => portSetsMeet(taken, sourcePorts))
      .map((pool) => ({ thing, pool, taken })),
  );
}

/** Addresses that packets have or go to, and that stand for captured ports. */
function privateAddresses(draft: Draft) {
  return captures(draft).flatMap(({ block }) =>
    [...addresses(draft)].flatMap((one) => {
      const taken = one.address.family === 4 ? block : PRIVATE6;
      return taken !== undefined && cidrContains(taken, one.address) ? [{ ...one, taken }] : [];
    }),
  );
}

function* addresses({ own, frontends, pools, probes }: Draft) {
  for (const thing of frontends) yield { thing, at: ['address'], address: thing.address };
  for (const pool of pools) {
    for (const [index, address] of pool.sourceAddresses.entries()) {
      yield { thing: pool, at: ['sourceAddresses', index], address };
    }
    for (const thing of pool.backends) {
      yield { thing, at: ['address'], address: thing.address };
      for (const [name, address] of Object.entries(thing.floatingAddresses)) {
        yield { thing, at: ['floatingAddresses', name], address };
      }
    }
  }
  for (const thing of probes) {
    const { sourceAddress: address } = thing;
    if (address !== undefined) yield { thing, at: ['sourceAddress'], address };
  }
  for (const { at, address } of own) yield { at, address };
}

/** Own listeners on any free port. With a socket a port they find one that is free; with capture all look free. */
function listensOnAnyPort(draft: Draft) {
  return captures(draft).flatMap(() => draft.own.filter(({ port }) => port === 0));
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
    expected: 'a frontend for each address whose ports are to be captured',
    reason: "Capture takes every port of an address away from this machine's own services",
  }),
  error('LB_CAPTURE_ADDRESS', capturedFrontends, 'address', LINK_LOCAL_FRONTEND),
  ...[true, false].map((isCommon) =>
    (isCommon ? warning : note)('LB_CAPTURE_LOOPBACK', capturedLoopback(isCommon), 'address', {
      say: ({ wide }) => `Rule "${wide.name}" captures ports of loopback`,
      expected: isCommon
        ? 'an address that no service of this machine is asked at'
        : 'no local services there',
      reason: 'Only ports with a listener at the time are left alone: what starts later is never reached',
    }),
  ),
  error('LB_VALUE', captures, 'block', {
    when: ({ block }) => !isSlotted(block),
    say: 'The block must be IPv4, /4 to /16',
    expected: ORDINARY_BLOCK,
    reason: SLOT,
  }),
  error('LB_VALUE', captures, 'block', {
    when: ({ block }) => isSlotted(block) && !isOrdinary(block),
    say: 'The block must hold ordinary addresses',
    expected: ORDINARY_BLOCK,
    reason: '0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 255.0.0.0/8 have meanings of their own',
  }),
  note('LB_CAPTURE_BLOCK', captures, 'block', {
    when: ({ block }) => isOrdinary(block) && !overlaps(block, CLASS_E),
    say: ({ block }) => `Parts of ${block.text} become addresses of this machine`,
    expected: 'a block that no client, backend or route uses',
    reason: 'Hosts elsewhere that have such an address can no longer be reached',
  }),
  error('LB_CAPTURE_ADDRESS', privateAddresses, '', {
    say: ({ taken }) => `Addresses in ${taken.text} stand for captured ports`,
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
    expected: 'a larger block, at most a /4',
    reason: SLOT,
  }),
  error('LB_CAPTURE_PORT', ownListensOnPrivatePorts, '', {
    say: ({ port, what }) => `Capture needs port ${port} itself, so ${what} cannot have it`,
    expected: ({ taken }) => `a port outside ${formatPortSet(taken)}`,
  }),
  error('LB_CAPTURE_PORT', poolsOnPrivatePorts, 'port', {
    say: ({ pool }) => `Pool "${pool.name}" connects from ports that capture needs itself`,
    found: ({ taken }) => formatPortSet(taken),
    expected: ({ pool }) => `ports outside the pool's sourcePorts, ${formatPortSet(pool.sourcePorts)}`,
    reason: 'Answers to those source ports would be refused',
  }),
  warning('LB_CAPTURE_PORT', captures, 'port', {
    when: ({ taken }, draft) =>
      portSetsMeet(taken, EPHEMERAL_PORTS) && poolsOnPrivatePorts(draft).length === 0,
    say: 'The kernel chooses source ports that capture needs itself',
    found: ({ taken }) => formatPortSet(taken),
    expected: `ports outside net.ipv4.ip_local_port_range, by default ${formatPortSet(EPHEMERAL_PORTS)}`,
    reason: 'Answers to those source ports would be refused, those of other programs too',
  }),
  error('LB_CAPTURE_PORT', listensOnAnyPort, '', {
    when: ({ address }, { rules }) =>
      rules.find(
        ({ haPorts, protocols, frontend }) =>
          haPorts && protocols.includes('tcp') && addressesOverlap(address, frontend.address),
      ),
    say: (_, rule) => `Any free port may be one that rule "${rule.name}" captures`,
    expected: 'a port, which HA-ports rules then leave alone',
  }),
  warning('LB_CAPTURE_SSH', captures, 'excludedPorts', {
    when: ({ thing }, draft) => draft.given(thing, 'excludedPorts') && draft.rules.find(capturesSsh),
    say: (_, rule) => `Rule "${rule.name}" captures tcp port 22`,
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
