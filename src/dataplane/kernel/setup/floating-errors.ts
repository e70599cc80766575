import type { KernelInput, KernelRule } from '../kernel-input.js';
import { embeddedFields, embeddedHash, embeddedKey } from './floating-keys.js';
import { FlowStatements } from './floating-flows.js';
import { coveredPorts, otherProtocolsRule, portTexts, type FrontendGroup } from './frontend-dispatch.js';
import { outSet, slotMap } from './placement.js';
import { chainText } from './table-text.js';

/*
 * ICMP errors about packets of backends, `fragmentation needed` among them, come to the frontend's address, for backends
 * answer from it. They go to the backend of the flow they are about, which is read from the packet inside, backwards. One
 * with IP options or extension headers inside is dropped.
 */

const ERRORS = {
  4: 'icmp type { destination-unreachable, time-exceeded, parameter-problem }',
  6: 'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }',
} as const;

/** Neighbours ask for the address itself once they know who has it. */
const NEIGHBOURS =
  'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept';

const TCP = '6';
const UDP = '17';

/** Sends errors to their chain. */
export function errorRules({ name, address: { family } }: FrontendGroup): string[] {
  return [...(family === 6 ? [NEIGHBOURS] : []), `${ERRORS[family]} goto e-${name}`];
}

export function errorChain(input: KernelInput, group: FrontendGroup): string[] {
  const { family } = group.address;
  const { protocol } = embeddedFields(family);
  const withPorts = `${protocol} { ${TCP}, ${UDP} }`;
  const withoutPorts = `${protocol} != { ${TCP}, ${UDP} }`;
  return chainText(`e-${group.name}`, undefined, [
    // An IPv4 header of 20 bytes: otherwise its ports are elsewhere.
    ...(family === 4 ? ['@th,64,8 != 0x45 drop'] : []),
    'meta mark set 0',
    ...(input.options.flowState === 'pinned' ? recallRules(group, withPorts, withoutPorts) : []),
    ...group.rules.flatMap((rule) => placeError(input, group, rule)),
    'meta mark 0 drop',
    'goto send',
  ]);
}

function recallRules(group: FrontendGroup, withPorts: string, withoutPorts: string): string[] {
  const { family } = group.address;
  const flows = new FlowStatements(group);
  const key = embeddedKey(family, 'with-ports');
  return [
    `${withPorts} ${flows.recall(key)}`,
    `${withPorts} meta mark 0 ${flows.recall(key, 'ends')}`,
    `${withoutPorts} ${flows.recall(embeddedKey(family, 'without-ports'))}`,
    'meta mark != 0 goto send',
  ];
}

/** Of a flow that is not pinned: where its packets are placed. Rules come in order of precedence. */
function placeError(input: KernelInput, group: FrontendGroup, one: KernelRule): string[] {
  const { family } = group.address;
  const { protocol, frontendPort } = embeddedFields(family);
  const { rule, table } = one;
  const set = (ports: 'with-ports' | 'without-ports'): string => {
    const { tableSize: size, seed } = input;
    const slot = embeddedHash({ family, distribution: rule.distribution, ports, size, seed });
    return `meta mark set ${slot} map @${slotMap(table)}`;
  };
  const lanes = rule.protocols.flatMap((name) => {
    const ports = portTexts(coveredPorts([one], name));
    if (ports.length === 0) return [];
    const number = name === 'tcp' ? TCP : UDP;
    return [`${protocol} ${number} ${frontendPort} { ${ports.join(', ')} } meta mark 0 ${set('with-ports')}`];
  });
  const others =
    otherProtocolsRule(group.rules) === one
      ? [`${protocol} != { ${TCP}, ${UDP} } meta mark 0 ${set('without-ports')}`]
      : [];
  return [...lanes, ...others, `meta mark @${outSet(table)} drop`];
}
