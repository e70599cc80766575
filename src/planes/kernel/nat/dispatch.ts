import {
  cidrContains,
  isWildcard,
  type Cidr,
  type IpAddress,
  type Protocol,
} from '../../../model/address.js';
import { portSetSize, unionPorts, type PortSet } from '../../../model/ports.js';
import type { PortOwners } from '../../../selection/rule-ports.js';
import { addressText, ipWord } from '../../netfilter/setup.js';
import type { KernelProgram, KernelRule } from '../program.js';

/** A frontend, and its rules in order of precedence. */
export interface FrontendGroup {
  readonly name: string;
  readonly address: IpAddress;
  /** It stands for all addresses of its family. */
  readonly wildcard: boolean;
  readonly rules: readonly KernelRule[];
  /** Which of them has which port: `KernelRule.index`. */
  readonly owners: Readonly<Record<Protocol, PortOwners>>;
}

/** Also of frontends that no rule has. */
export function frontendGroups({
  frontends,
  rules,
  rulePorts,
}: Pick<KernelProgram, 'frontends' | 'rules' | 'rulePorts'>): FrontendGroup[] {
  return frontends.map(({ name, address }) => ({
    ...{ name, address, wildcard: isWildcard(address) },
    rules: rules.filter(({ rule }) => rule.frontend.name === name),
    owners: { tcp: rulePorts.at('tcp', address), udp: rulePorts.at('udp', address) },
  }));
}

/** `ip daddr vmap { 10.9.0.10 : jump f-hub }`, of the frontends of a family that are no wildcards; none: no rule. */
export function addressRules(
  groups: readonly FrontendGroup[],
  options: {
    /** `daddr`, or `ct original`'s. */
    readonly key: (ip: 'ip' | 'ip6') => string;
    readonly verdict: (group: FrontendGroup) => string;
  },
): string[] {
  return ([4, 6] as const).flatMap((family) => {
    const named = groups.filter(({ address, wildcard }) => address.family === family && !wildcard);
    if (named.length === 0) return [];
    const elements = named.map((group) => `${addressText(group.address)} : ${options.verdict(group)}`);
    return [`${options.key(ipWord(family))} vmap { ${elements.join(', ')} }`];
  });
}

/** `tcp dport vmap { 443 : goto r-web, 1-442 : goto r-ha }`: each port goes to the rule that has it; none: no rule. */
export function portRules(
  { rules, owners }: FrontendGroup,
  protocol: Protocol,
  options: { readonly key: string; readonly verdict: (rule: KernelRule) => string },
): string[] {
  const elements = rules.flatMap((rule) =>
    portTexts(owners[protocol].portsOf(rule.index)).map((ports) => `${ports} : ${options.verdict(rule)}`),
  );
  return elements.length === 0 ? [] : [`${options.key} vmap { ${elements.join(', ')} }`];
}

/** All ports that any of the rules takes. */
export function coveredPorts({ owners }: FrontendGroup, protocol: Protocol): PortSet {
  return unionPorts(owners[protocol].segments, []);
}

/** `1-442`, `443`. */
export function portTexts(ports: PortSet): string[] {
  return ports.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`));
}

/** HA-ports rules leave out a few ports, those of haports itself. With `listenPorts` they are about those ports only. */
const MOST_LEFT_OUT = 64;

/** The rule that takes ICMP, GRE, ESP and whatever else has no ports; undefined: none. */
export function otherProtocolsRule(rules: readonly KernelRule[]): KernelRule | undefined {
  return rules.find(
    ({ rule }) =>
      rule.haPorts && rule.protocols.length === 2 && portSetSize(rule.ports) >= 65_535 - MOST_LEFT_OUT,
  );
}

/** What is done to packets from sources that the frontend does not admit. Deny wins over allow. */
export function accessRules({ rule: { frontend } }: KernelRule, verdict: string): string[] {
  const source = `${ipWord(frontend.address.family)} saddr`;
  const denied = blockTexts(frontend.deny, frontend.address.family);
  const allowed = blockTexts(frontend.allow, frontend.address.family);
  const rules = denied.length === 0 ? [] : [`${source} { ${denied.join(', ')} } ${verdict}`];
  if (frontend.allow.length === 0) return rules;
  return [...rules, allowed.length === 0 ? verdict : `${source} != { ${allowed.join(', ')} } ${verdict}`];
}

/** Blocks of one family, without those that lie in another: nft takes no intervals that overlap. */
export function blockTexts(blocks: readonly Cidr[], family: 4 | 6): string[] {
  const ofFamily = blocks.filter(({ address }) => address.family === family);
  const outer = ofFamily.filter(
    (block) =>
      !ofFamily.some(
        (other) => other.prefixLength < block.prefixLength && cidrContains(other, block.address),
      ),
  );
  return [...new Set(outer.map(({ text }) => text))];
}
