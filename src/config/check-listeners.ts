import { compareAddresses, isWildcard } from '../model/address.js';
import { formatPortSet, intersectPorts, portSetContains, portSetsMeet } from '../model/port-set.js';
import { addressesOverlap } from './addresses-overlap.js';
import type { BoundRule } from './bind-rules.js';
import { answerIssues } from './check-answers.js';
import type { Draft } from './draft.js';
import { error, formatPath, note, type Issue } from './finding.js';
import { ownListens, ownListensAt, type OwnListen } from './own-listeners.js';

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
