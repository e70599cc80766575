import {
  PROTOCOLS,
  compareAddresses,
  formatEndpoint,
  isLoopback,
  isWildcard,
  type IpAddress,
  type Protocol,
} from '../../model/address.js';
import type { Backend, Rule } from '../../model/configuration.js';
import {
  formatPortSet,
  intersectPorts,
  portSetContains,
  portSetOf,
  portSetsMeet,
  type PortSet,
} from '../../model/ports.js';
import { formatPath, type Issue } from '../findings.js';
import { addressesOverlap, ownListens, ownListensAt, shiftPorts, type Draft } from '../resolve.js';
import { error, note, quoted, repeats } from './check.js';

/** Two rules that have ports in common. */
interface SharedPorts {
  /** `clash`: one of them is on a wildcard address; else they are on one address. */
  readonly kind: 'overlap' | 'yields' | 'clash';
  /** The rule that is told of it. */
  readonly thing: Rule;
  readonly rule: Rule;
  readonly earlier: Rule;
  /** The one that names its ports, if the other does not. */
  readonly narrow: Rule;
  /** `tcp and udp port 80-90` */
  readonly place: string;
}

function sharedPorts({ plane, rules }: Draft): readonly SharedPorts[] {
  const found: SharedPorts[] = [];
  for (const [index, rule] of rules.entries()) {
    for (const earlier of rules.slice(0, index)) {
      const [a, b] = [rule.frontend.address, earlier.frontend.address];
      const isSame = compareAddresses(a, b) === 0;
      // Without sockets, a wildcard gets what no specific address does.
      const clashes = plane === 'userspace' && a.family === b.family && (isWildcard(a) || isWildcard(b));
      if ((!isSame && !clashes) || !portSetsMeet(rule.ports, earlier.ports)) continue;
      const protocols = rule.protocols.filter((protocol) => earlier.protocols.includes(protocol));
      if (protocols.length === 0) continue;
      const common = formatPortSet(intersectPorts(rule.ports, earlier.ports));
      const [wide, narrow] = rule.haPorts ? [rule, earlier] : [earlier, rule];
      const place = `${protocols.join(' and ')} port ${common}`;
      const kind = !isSame ? 'clash' : rule.haPorts === earlier.haPorts ? 'overlap' : 'yields';
      found.push({ kind, thing: kind === 'yields' ? wide : rule, rule, earlier, narrow, place });
    }
  }
  return found;
}

function sharedPortIssues(draft: Draft): readonly Issue[] {
  const shared = sharedPorts(draft);
  const of = (wanted: SharedPorts['kind']) => () => shared.filter(({ kind }) => kind === wanted);
  const rows = [
    error('LB_OVERLAP', of('overlap'), '', {
      say: ({ rule, earlier, place }) =>
        `Rules "${earlier.name}" and "${rule.name}" both claim ${place} of frontend "${rule.frontend.name}"`,
      expected: 'one rule for a port of a frontend',
    }),
    note('LB_YIELDS', of('yields'), '', {
      say: ({ thing, narrow, place }) =>
        `HA-ports rule "${thing.name}" yields ${place} to rule "${narrow.name}"`,
    }),
    error('LB_CLASH', of('clash'), '', {
      say: ({ rule, earlier, place }) =>
        `Rules "${earlier.name}" and "${rule.name}" both need ${place}: ` +
        `${earlier.frontend.address.text} and ${rule.frontend.address.text} overlap`,
      expected: 'a wildcard frontend and a specific one to keep to different ports',
      reason: 'The system binds a port to a wildcard address or to a specific one, not to both',
    }),
  ];
  return rows.flatMap((check) => check(draft));
}

/** Own listeners with rules that claim their port, or an earlier own listener that does. */
function ownClashes(draft: Draft) {
  const { root: thing } = draft;
  const own = ownListens(thing);
  const gets = (rule: Rule, what: string) =>
    ownListensAt(draft, rule.frontend.address).some((listen) => listen.what === what);
  return own.flatMap(({ what, path: at, port, address }, index) => {
    const rules = draft.rules.filter(
      (rule) => rule.protocols.includes('tcp') && portSetContains(rule.ports, port) && gets(rule, what),
    );
    const others = own
      .slice(0, index)
      .filter((earlier) => earlier.port === port && addressesOverlap(address, earlier.address));
    return [
      ...rules.map(({ name }) => ({
        thing,
        at,
        port,
        who: `Rule "${name}"`,
        expected: 'a port that no rule names',
      })),
      ...others.map(({ path }) => ({
        thing,
        at,
        port,
        who: quoted(formatPath(path)),
        expected: 'a port of its own',
      })),
    ];
  });
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
      found: ({ thing }) => quoted(thing.address),
      expected: 'an address of its own for each frontend',
    },
  ),
  sharedPortIssues,
  error('LB_OVERLAP', ownClashes, '', {
    say: ({ who, port }) => `${who} claims tcp port ${port} as well`,
    found: ({ port }) => String(port),
    expected: ({ expected }) => expected,
  }),
  error('LB_CONFLICT', answeringFromAddress, 'udp.answersFrom', {
    when: ({ udp }) =>
      udp.perPacket ? 'perPacket' : udp.expectedResponses !== undefined && 'expectedResponses',
    say: (_, key) => `Answers from other ports do not go with ${key}`,
    found: '"address"',
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

/** A place where haports itself takes connections or datagrams. */
interface OwnListener {
  readonly what: string;
  readonly address: IpAddress;
  readonly protocols: readonly Protocol[];
  readonly ports: PortSet;
}

/**
 * Finds own listeners that get what is sent to an address. A wildcard listener takes all of this machine's addresses and
 * loopback; `::` takes both families. IPv4-mapped addresses have become IPv4 when they were parsed.
 */
function ownListenersNear({ root, rules, pools, ownAddresses }: Draft) {
  const listeners: readonly OwnListener[] = [
    ...rules.map(({ name, frontend, protocols, ports }) => {
      return { what: `the listener of rule "${name}"`, address: frontend.address, protocols, ports };
    }),
    ...ownListens(root).map(({ what, address, port }) => {
      return { what, address, protocols: ['tcp'] as const, ports: portSetOf(port) };
    }),
  ];
  const at = (target: IpAddress) => listeners.filter(({ address }) => reaches(address, target, ownAddresses));
  // Of millions of pairs of rule and backend, almost all end here.
  const near = new Map(
    pools.map((pool) => [pool, pool.backends.filter(({ address }) => at(address).length > 0)]),
  );
  return {
    /** Backends whose own address leads to a listener, on some port. */
    near: (rule: Rule) => near.get(rule.pool) ?? [],
    find: (target: IpAddress, protocols: readonly Protocol[], ports: PortSet) => {
      for (const listener of at(target)) {
        const shared = PROTOCOLS.filter((one) => protocols.includes(one) && listener.protocols.includes(one));
        if (shared.length === 0 || !portSetsMeet(ports, listener.ports)) continue;
        const common = formatPortSet(intersectPorts(ports, listener.ports));
        return { place: `${shared.join(' and ')} port ${common}`, what: listener.what };
      }
      return undefined;
    },
  };
}

/** Backends that a rule would dial, and own listeners would answer. */
function dialLoops(draft: Draft) {
  const { near, find } = ownListenersNear(draft);
  return draft.rules.flatMap((rule) => {
    // In the kernel packets go to the backend itself, whatever address is on them.
    const floating = draft.plane === 'userspace' && rule.floatingIp;
    const at = floating ? ['floatingAddresses', rule.frontend.name] : ['address'];
    const ports = shiftPorts(rule.ports, rule.portOffset);
    return (floating ? rule.pool.backends : near(rule)).flatMap((thing) => {
      const address = dialled(rule, thing, floating);
      const hit = address && find(address, rule.protocols, ports);
      return hit === undefined ? [] : [{ thing, at, rule, text: address?.text ?? '', ...hit }];
    });
  });
}

/** Backends whose probe own listeners would answer. */
function probeLoops(draft: Draft) {
  const { near, find } = ownListenersNear(draft);
  return draft.rules.flatMap((rule) => {
    const { probe } = rule;
    if (probe === undefined) return [];
    return near(rule).flatMap((thing) => {
      const hit = find(thing.address, ['tcp'], portSetOf(probe.port));
      const target = formatEndpoint(thing.address, probe.port);
      return hit === undefined ? [] : [{ thing, probe, target, what: hit.what }];
    });
  });
}

/** Backends and probe targets that lead straight back into haports. */
export const LOOP_CHECKS = [
  error('LB_LOOP', dialLoops, '', {
    say: ({ rule, place, text, what }) => `Rule "${rule.name}" would send ${place} of ${text} into ${what}`,
    found: ({ text }) => quoted(text),
    expected: 'an address and port where haports itself does not listen',
    reason: 'A flow that comes back to its own listener runs in circles until everything is used up',
  }),
  error('LB_LOOP', probeLoops, 'address', {
    say: ({ probe, what, target }) =>
      `Probe "${probe.name}" would reach ${what} at ${target}, not the backend`,
    found: ({ target }) => target,
    expected: 'an address and port where haports itself does not listen',
    reason: 'haports would judge the backend by its own answer',
  }),
];
