import {
  PROTOCOLS,
  compareAddresses,
  formatEndpoint,
  isLoopback,
  isWildcard,
  type IpAddress,
  type Protocol,
} from '../../model/address.js';
import {
  formatPortSet,
  intersectPorts,
  portSetContains,
  portSetOf,
  portSetsMeet,
  type PortSet,
} from '../../model/ports.js';
import {
  addressesOverlap,
  answersFromOf,
  ownListens,
  ownListensAt,
  shiftPorts,
  type BoundRule,
  type OwnListen,
} from '../bind-rules.js';
import type { Draft } from '../draft.js';
import { error, formatPath, note, type Issue, type Path } from '../findings.js';

/** Rules and frontends that would listen in the same place, and answers that leave from where nobody listens. */
export function listenerIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  return [
    ...sameAddress(draft),
    ...sharedPorts(draft, rules),
    ...ownClashes(draft, rules),
    ...answerIssues(draft, rules),
  ];
}

function sameAddress(draft: Draft): Issue[] {
  const seen = new Map<string, string>();
  return draft.frontends.flatMap(({ path, value: { name, address } }) => {
    const other = seen.get(address.text);
    if (other === undefined) {
      seen.set(address.text, name);
      return [];
    }
    return [
      error(
        'LB_DUPLICATE_ADDRESS',
        [...path, 'address'],
        `Address ${address.text} is already frontend "${other}"`,
        {
          found: `"${address.text}"`,
          expected: 'an address of its own for each frontend',
        },
      ),
    ];
  });
}

function sharedPorts({ plane }: Draft, rules: readonly BoundRule[]): Issue[] {
  const issues: Issue[] = [];
  // Without sockets, a wildcard gets what no specific address does.
  const clashes = plane.kind === 'userspace';
  for (const [index, rule] of rules.entries()) {
    for (const earlier of rules.slice(0, index)) {
      const a = rule.frontend.value.address;
      const b = earlier.frontend.value.address;
      const same = rule.frontend === earlier.frontend || compareAddresses(a, b) === 0;
      if (!same && !(clashes && a.family === b.family && (isWildcard(a) || isWildcard(b)))) continue;
      const protocols = rule.protocols.filter((protocol) => earlier.protocols.includes(protocol));
      if (protocols.length === 0 || !portSetsMeet(rule.ports, earlier.ports)) continue;
      const common = formatPortSet(intersectPorts(rule.ports, earlier.ports));
      const place = `${protocols.join(' and ')} port ${common}`;
      const tell = !same ? wildcardClash : rule.haPorts === earlier.haPorts ? overlap : yields;
      issues.push(tell(rule, earlier, place));
    }
  }
  return issues;
}

function overlap(rule: BoundRule, earlier: BoundRule, place: string): Issue {
  const message = `Rules "${earlier.input.name}" and "${rule.input.name}" both claim ${place} of frontend "${rule.input.frontend}"`;
  return error('LB_OVERLAP', rule.path, message, { expected: 'one rule for a port of a frontend' });
}

function yields(rule: BoundRule, earlier: BoundRule, place: string): Issue {
  const [wide, narrow] = rule.haPorts ? [rule, earlier] : [earlier, rule];
  const message = `HA-ports rule "${wide.input.name}" yields ${place} to rule "${narrow.input.name}"`;
  return note('LB_YIELDS', wide.path, message);
}

function wildcardClash(rule: BoundRule, earlier: BoundRule, place: string): Issue {
  const message =
    `Rules "${earlier.input.name}" and "${rule.input.name}" both need ${place}: ` +
    `${earlier.frontend.value.address.text} and ${rule.frontend.value.address.text} overlap`;
  return error('LB_CLASH', rule.path, message, {
    expected: 'a wildcard frontend and a specific one to keep to different ports',
    reason: 'The system binds a port to a wildcard address or to a specific one, not to both',
  });
}

function ownClashes(draft: Draft, rules: readonly BoundRule[]): Issue[] {
  const own = ownListens(draft);
  return own.flatMap((listen, index) => [
    ...ruleClashes(draft, listen, rules),
    ...own.slice(0, index).flatMap((earlier) => ownClash(listen, earlier)),
  ]);
}

function ruleClashes(draft: Draft, { what, path, port }: OwnListen, rules: readonly BoundRule[]): Issue[] {
  return rules
    .filter(
      ({ protocols, ports, frontend }) =>
        protocols.includes('tcp') &&
        portSetContains(ports, port) &&
        ownListensAt(draft, frontend.value.address).some((own) => own.what === what),
    )
    .map((rule) =>
      error('LB_OVERLAP', path, `Rule "${rule.input.name}" claims tcp port ${port} as well`, {
        found: String(port),
        expected: 'a port that no rule names',
      }),
    );
}

function ownClash(listen: OwnListen, earlier: OwnListen): Issue[] {
  if (listen.port !== earlier.port || !addressesOverlap(listen.address, earlier.address)) return [];
  const message = `"${formatPath(earlier.path)}" claims tcp port ${listen.port} as well`;
  const details = { found: String(listen.port), expected: 'a port of its own' };
  return [error('LB_OVERLAP', listen.path, message, details)];
}

/** A place where haports itself takes connections or datagrams. */
interface OwnListener {
  readonly what: string;
  readonly address: IpAddress;
  readonly protocols: readonly Protocol[];
  readonly ports: PortSet;
}

/** An address that a rule dials, and the index of the backend in its pool. */
interface DialTarget {
  readonly index: number;
  readonly address: IpAddress;
}

/**
 * Backends and probe targets that lead straight back into haports. A wildcard listener takes all of `ownAddresses`
 * and loopback; `::` takes both families. IPv4-mapped addresses have become IPv4 when they were parsed.
 */
export function loopIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const listeners = ownListeners(draft, rules);
  const known = new Map<string, readonly OwnListener[]>();
  const reached = (address: IpAddress) => {
    const before = known.get(address.text);
    if (before !== undefined) return before;
    const found = listeners.filter((listener) => reaches(listener.address, address, ownAddresses));
    known.set(address.text, found);
    return found;
  };
  // In the kernel packets go to the backend itself, whatever address is on them.
  const ownAddress = draft.plane.kind === 'kernel';
  return rules.flatMap((rule) => [
    ...dialLoops(ownAddress ? { ...rule, input: { ...rule.input, floatingIp: false } } : rule, reached),
    ...probeLoops(rule, reached),
  ]);
}

/** The addresses that a rule dials: the backends' own, or what they terminate the frontend on. */
export function dialTargets({ input, pool }: BoundRule): readonly DialTarget[] {
  return pool.value.backends.flatMap((backend, index): DialTarget | DialTarget[] => {
    if (!input.floatingIp) return { index, address: backend.address };
    const address = backend.floatingAddresses[input.frontend];
    return address === undefined ? [] : { index, address };
  });
}

function dialPath({ input, pool }: BoundRule, index: number): Path {
  const key = input.floatingIp ? ['floatingAddresses', input.frontend] : ['address'];
  return [...pool.path, 'backends', index, ...key];
}

/** Whether a socket listening on `listener` gets what is sent to `target`. */
export function reaches(listener: IpAddress, target: IpAddress, ownAddresses: readonly IpAddress[]): boolean {
  if (compareAddresses(listener, target) === 0) return true;
  if (!isWildcard(listener) || (listener.family === 4 && target.family === 6)) return false;
  return isLoopback(target) || ownAddresses.some((own) => compareAddresses(own, target) === 0);
}

function ownListeners(draft: Draft, rules: readonly BoundRule[]): OwnListener[] {
  const flows = rules.map((rule): OwnListener => ({
    what: `the listener of rule "${rule.input.name}"`,
    address: rule.frontend.value.address,
    protocols: rule.protocols,
    ports: rule.ports,
  }));
  const own = ownListens(draft).map(({ what, address, port }): OwnListener => ({
    what,
    address,
    protocols: ['tcp'],
    ports: portSetOf(port),
  }));
  return [...flows, ...own];
}

function dialLoops(rule: BoundRule, reached: (address: IpAddress) => readonly OwnListener[]): Issue[] {
  const dialled = shiftPorts(rule.ports, rule.portOffset);
  return dialTargets(rule).flatMap(({ index, address }) => {
    const hit = firstHit(reached(address), rule.protocols, dialled);
    if (hit === undefined) return [];
    const message = `Rule "${rule.input.name}" would send ${hit.place} of ${address.text} into ${hit.what}`;
    return [
      error('LB_LOOP', dialPath(rule, index), message, {
        found: `"${address.text}"`,
        expected: 'an address and port where haports itself does not listen',
        reason: 'A flow that comes back to its own listener runs in circles until everything is used up',
      }),
    ];
  });
}

function probeLoops(rule: BoundRule, reached: (address: IpAddress) => readonly OwnListener[]): Issue[] {
  const probe = rule.probe?.value;
  if (probe === undefined) return [];
  return rule.pool.value.backends.flatMap(({ address }, index) => {
    const hit = firstHit(reached(address), ['tcp'], portSetOf(probe.port));
    if (hit === undefined) return [];
    const target = formatEndpoint(address, probe.port);
    const message = `Probe "${probe.name}" would reach ${hit.what} at ${target}, not the backend`;
    return [
      error('LB_LOOP', [...rule.pool.path, 'backends', index, 'address'], message, {
        found: target,
        expected: 'an address and port where haports itself does not listen',
        reason: 'haports would judge the backend by its own answer',
      }),
    ];
  });
}

function firstHit(
  listeners: readonly OwnListener[],
  protocols: readonly Protocol[],
  ports: PortSet,
): { readonly place: string; readonly what: string } | undefined {
  for (const listener of listeners) {
    if (!portSetsMeet(ports, listener.ports)) continue;
    const shared = PROTOCOLS.filter((each) => protocols.includes(each) && listener.protocols.includes(each));
    if (shared.length === 0) continue;
    const common = formatPortSet(intersectPorts(ports, listener.ports));
    return { place: `${shared.join(' and ')} port ${common}`, what: listener.what };
  }
  return undefined;
}

/** Rules that let backends answer from other ports, and what stands in the way of that. */
export function answerIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  if (draft.plane.kind === 'kernel') return [];
  return rules
    .filter((rule) => rule.protocols.includes('udp') && answersFromOf(rule) === 'address')
    .flatMap((rule) => [...countedReplies(rule), ...portsOfOtherWorkers(draft, rule)]);
}

function countedReplies({ path, input }: BoundRule): Issue[] {
  const { perPacket, expectedResponses } = input.udp ?? {};
  if (perPacket !== true && expectedResponses === undefined) return [];
  const key = perPacket === true ? 'perPacket' : 'expectedResponses';
  const reason = 'A flow that a backend begins has no request whose replies could be counted or left out';
  return [
    error('LB_CONFLICT', [...path, 'udp', 'answersFrom'], `Answers from other ports do not go with ${key}`, {
      found: '"address"',
      expected: `"endpoint", or no ${key}`,
      reason,
    }),
  ];
}

function portsOfOtherWorkers({ root }: Draft, { path }: BoundRule): Issue[] {
  const { workers, capture } = root.dataPlane;
  if (workers < 2 || capture?.udp === 'redirect') return [];
  const message =
    `With ${workers} data workers, answers from another port pass only where one worker has both ports ` +
    `(about one in ${workers})`;
  const reason = 'Each UDP port belongs to one worker. One worker, or capture, has them all in one place';
  return [note('LB_ANSWERS_BY_WORKER', [...path, 'udp', 'answersFrom'], message, { reason })];
}
