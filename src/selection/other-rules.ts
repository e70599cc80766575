import { isWildcard, type IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import type { FiveTuple } from '../model/five-tuple.js';
import { portSetContains } from '../model/port-set.js';
import type { Rule } from '../model/rule.js';
import type { OtherRule } from './explanation.js';
import { frontendCovers } from './rule-matcher.js';

/**
 * Rules that cover the tuple as well but yield to the winner, and why. Without a winner (NO_RULE): all rules, and the
 * first thing about each that does not fit.
 */
export function otherRules(
  configuration: Configuration,
  winnerIndex: number,
  tuple: FiveTuple,
): readonly OtherRule[] {
  const addresses = new Map(configuration.frontends.map(({ name, address }) => [name, address]));
  const winner = configuration.rules[winnerIndex];
  return configuration.rules.flatMap((rule): OtherRule[] => {
    if (rule === winner) return [];
    const address = addresses.get(rule.frontend);
    const misfit = whatMisfits(rule, address, tuple);
    if (winner === undefined) return misfit === undefined ? [] : [{ name: rule.name, why: misfit }];
    if (misfit !== undefined || address === undefined) return [];
    const winnerAddress = addresses.get(winner.frontend);
    return [{ name: rule.name, why: whyItYields(rule, address, winner, winnerAddress) }];
  });
}

function whatMisfits(
  rule: Rule,
  address: IpAddress | undefined,
  tuple: FiveTuple,
): OtherRule['why'] | undefined {
  if (address === undefined || !frontendCovers(address, tuple.destination)) return 'other-address';
  if (!rule.protocols.includes(tuple.protocol)) return 'other-protocol';
  return portSetContains(rule.ports, tuple.destinationPort) ? undefined : 'other-port';
}

function whyItYields(
  rule: Rule,
  address: IpAddress,
  winner: Rule,
  winnerAddress: IpAddress | undefined,
): OtherRule['why'] {
  if (isWildcard(address) && winnerAddress !== undefined && !isWildcard(winnerAddress)) {
    return 'exact-address-wins';
  }
  return rule.haPorts && !winner.haPorts ? 'named-port-wins' : 'earlier-rule-wins';
}
