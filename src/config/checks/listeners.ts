import {
  compareAddresses,
  formatEndpoint,
  isLoopback,
  isWildcard,
  type IpAddress,
} from '../../model/address.js';
import type { Backend, Rule } from '../../model/configuration.js';
import { formatPortSet, intersectPorts, portSetOf, portSetsMeet } from '../../model/ports.js';
import { formatPath } from '../findings.js';
import { addressesOverlap, ownListensAt, shiftPorts, type Draft } from '../resolve.js';
import { error, note, repeats } from './check.js';

/** What takes connections or datagrams. */
type Taker = Pick<Rule, 'protocols' | 'ports'>;

/** `tcp and udp port 80-90`, which both take; undefined: nothing. */
export function commonPorts(a: Taker, b: Taker): string | undefined {
  const protocols = a.protocols.filter((one) => b.protocols.includes(one));
  if (protocols.length === 0 || !portSetsMeet(a.ports, b.ports)) return undefined;
  return `${protocols.join(' and ')} port ${formatPortSet(intersectPorts(a.ports, b.ports))}`;
}

/**
 * Rules that have ports in common with an earlier one. `clash`: one of them is on a wildcard address. Else they are on
 * one address: `yields`: one of the two names its ports, and the finding is about the other; `overlap`: both do, or neither.
 */
function sharing(wanted: 'overlap' | 'yields' | 'clash') {
  return function* ({ plane, rules }: Draft) {
    for (const [index, rule] of rules.entries()) {
      for (const earlier of rules.slice(0, index)) {
        const [a, b] = [rule.frontend.address, earlier.frontend.address];
        const isSame = compareAddresses(a, b) === 0;
        // Without sockets, a wildcard gets what no specific address does.
        const clashes = plane === 'userspace' && a.family === b.family && (isWildcard(a) || isWildcard(b));
        const place = isSame || clashes ? commonPorts(rule, earlier) : undefined;
        const kind = !isSame ? 'clash' : rule.haPorts === earlier.haPorts ? 'overlap' : 'yields';
        if (place === undefined || kind !== wanted) continue;
        const [wide, narrow] = rule.haPorts ? [rule, earlier] : [earlier, rule];
        yield { thing: kind === 'yields' ? wide : rule, rule, earlier, narrow, place };
      }
    }
  };
}

/** Own listeners with rules that claim their port, and with earlier own listeners that do. */
function* ownClashes(draft: Draft) {
  for (const [index, listen] of draft.own.entries()) {
    for (const rule of draft.rules) {
      const isNear = ownListensAt(draft, rule.frontend.address).includes(listen);
      if (!isNear || commonPorts(rule, listen) === undefined) continue;
      yield { ...listen, who: `Rule "${rule.name}"`, expected: 'a port that no rule names' };
    }
    for (const earlier of draft.own.slice(0, index)) {
      const isNear = addressesOverlap(listen.address, earlier.address);
      if (!isNear || commonPorts(earlier, listen) === undefined) continue;
      yield { ...listen, who: `"${formatPath(earlier.at)}"`, expected: 'a port of its own' };
    }
  }
}

/** Rules that let backends answer from other ports. */
function answeringFromAddress({ plane, rules }: Draft): readonly Rule[] {
  if (plane === 'kernel') return [];
  return rules.filter(({ protocols, udp }) => protocols.includes('udp') && udp.answersFrom === 'address');
}

/** Rules and frontends that would listen in the same place, and answers that leave from where nothing listens. */
export const LISTENER_CHECKS = [
  error(
    'LB_DUPLICATE_ADDRESS',
    ({ frontends }) => repeats(frontends, ({ address }) => address.text),
    'address',
    {
      say: ({ thing, first }) => `Address ${thing.address.text} is already frontend "${first.name}"`,
      expected: 'an address of its own for each frontend',
    },
  ),
  error('LB_OVERLAP', sharing('overlap'), '', {
    say: ({ rule, earlier, place }) =>
      `Rules "${earlier.name}" and "${rule.name}" both claim ${place} of frontend "${rule.frontend.name}"`,
    expected: 'one rule for a port of a frontend',
  }),
  note('LB_YIELDS', sharing('yields'), '', {
    say: ({ thing, narrow, place }) =>
      `HA-ports rule "${thing.name}" yields ${place} to rule "${narrow.name}"`,
  }),
  error('LB_CLASH', sharing('clash'), '', {
    say: ({ rule, earlier, place }) =>
      `Rules "${earlier.name}" and "${rule.name}" both need ${place}: ` +
      `${earlier.frontend.address.text} and ${rule.frontend.address.text} overlap`,
    expected: 'a wildcard frontend and a specific one to keep to different ports',
    reason: 'The system binds a port to a wildcard address or to a specific one, not to both',
  }),
  error('LB_OVERLAP', ownClashes, '', {
    say: ({ who, port }) => `${who} claims tcp port ${port} as well`,
    expected: ({ expected }) => expected,
  }),
  error('LB_CONFLICT', answeringFromAddress, 'udp.answersFrom', {
    when: ({ udp }) =>
      udp.perPacket ? 'perPacket' : udp.expectedResponses !== undefined && 'expectedResponses',
    say: (_, key) => `Answers from other ports do not go with ${key}`,
    expected: (_, key) => `"endpoint", or no ${key}`,
    reason: 'A flow that a backend begins has no request whose replies could be counted or left out',
  }),
  note('LB_ANSWERS_BY_WORKER', answeringFromAddress, 'udp.answersFrom', {
    when: (_, { root: { dataPlane } }) =>
      dataPlane.workers >= 2 && dataPlane.capture?.udp !== 'redirect' && dataPlane.workers,
    say: (_, workers) =>
      `With ${workers} data workers, answers from another port pass only where one worker has both ports ` +
      `(about one in ${workers})`,
    reason: 'Each UDP port belongs to one worker. One worker, or capture, has them all in one place',
  }),
];

/** Where a backend terminates flows: its own address, or with floating IP what stands for the frontend's there. */
export function dialled({ frontend }: Rule, backend: Backend, floating: boolean): IpAddress | undefined {
  return floating ? backend.floatingAddresses[frontend.name] : backend.address;
}

/** Whether a socket listening on `listener` gets what is sent to `target`. */
export function reaches(listener: IpAddress, target: IpAddress, ownAddresses: readonly IpAddress[]): boolean {
  if (compareAddresses(listener, target) === 0) return true;
  if (!isWildcard(listener) || (listener.family === 4 && target.family === 6)) return false;
  return isLoopback(target) || ownAddresses.some((own) => compareAddresses(own, target) === 0);
}

/** What a rule, or its probe, would connect to. */
interface Dialled extends Taker {
  readonly thing: Backend;
  readonly address: IpAddress;
}

/**
 * Those of them that own listeners would answer. A wildcard listener takes all of this machine's addresses and loopback;
 * `::` takes both families. IPv4-mapped addresses have become IPv4 when they were parsed.
 */
function loops<T extends Dialled>(
  dialledBy: (rule: Rule, backends: readonly Backend[], draft: Draft) => readonly T[],
) {
  return (draft: Draft) => {
    const { rules, own, pools, ownAddresses } = draft;
    const listeners = [
      ...rules.map(({ name, frontend, protocols, ports }) => {
        return { what: `the listener of rule "${name}"`, address: frontend.address, protocols, ports };
      }),
      ...own,
    ];
    const at = (target: IpAddress) =>
      listeners.filter(({ address }) => reaches(address, target, ownAddresses));
    // Of millions of pairs of rule and backend, almost all end here.
    const near = new Map(
      pools.map((pool) => [pool, pool.backends.filter(({ address }) => at(address).length > 0)]),
    );
    return rules.flatMap((rule) =>
      dialledBy(rule, near.get(rule.pool) ?? [], draft).flatMap((target) => {
        const hits = at(target.address).flatMap((listener) => {
          const common = commonPorts(target, listener);
          return common === undefined ? [] : [{ ...target, rule, what: listener.what, common }];
        });
        return hits.slice(0, 1);
      }),
    );
  };
}

/** @param near - backends whose own address leads to a listener, on some port */
function dialledByRule(rule: Rule, near: readonly Backend[], { plane }: Draft) {
  // In the kernel packets go to the backend itself, whatever address is on them.
  const floating = plane === 'userspace' && rule.floatingIp;
  const at = floating ? ['floatingAddresses', rule.frontend.name] : ['address'];
  const ports = shiftPorts(rule.ports, rule.portOffset);
  return (floating ? rule.pool.backends : near).flatMap((thing) => {
    const address = dialled(rule, thing, floating);
    return address === undefined ? [] : [{ thing, at, address, protocols: rule.protocols, ports }];
  });
}

function dialledByProbe({ probe }: Rule, near: readonly Backend[]) {
  if (probe === undefined) return [];
  const tcp = { protocols: ['tcp'] as const, ports: portSetOf(probe.port) };
  return near.map((thing) => {
    return {
      thing,
      address: thing.address,
      ...tcp,
      probe,
      target: formatEndpoint(thing.address, probe.port),
    };
  });
}

/** Backends and probe targets that lead straight back into haports. */
export const LOOP_CHECKS = [
  error('LB_LOOP', loops(dialledByRule), '', {
    say: ({ rule, common, address, what }) =>
      `Rule "${rule.name}" would send ${common} of ${address.text} into ${what}`,
    expected: 'an address and port where haports itself does not listen',
    reason: 'A flow that comes back to its own listener runs in circles until everything is used up',
  }),
  error('LB_LOOP', loops(dialledByProbe), 'address', {
    say: ({ probe, what, target }) =>
      `Probe "${probe.name}" would reach ${what} at ${target}, not the backend`,
    found: ({ target }) => target,
    expected: 'an address and port where haports itself does not listen',
    reason: 'haports would judge the backend by its own answer',
  }),
];
