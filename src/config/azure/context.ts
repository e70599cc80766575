import { isWildcard, type IpAddress } from '../../model/address.js';
import { cidrContains, parseCidr, type Cidr } from '../../model/cidr.js';
import type { BoundRule } from '../bind-rules.js';
import type { Draft } from '../draft.js';
import type { Issue, IssueDetails, Path } from '../finding.js';

/**
 * What the checks of Azure's HA-ports rules look at. The whole configuration stands for one load balancer resource;
 * where a rule of Azure's speaks of things that no configuration holds (other resources, networks, interfaces), its
 * check does what can be decided and says so.
 */
export interface AzureContext {
  readonly compat: 'none' | 'azure';
  readonly draft: Draft;
  readonly rules: readonly BoundRule[];
}

export type AzureCheck = (context: AzureContext) => readonly Issue[];

/** What only Azure forbids: an error under `"compat": "azure"`, else a note. */
export function azureOnly(
  { compat }: AzureContext,
  code: string,
  path: Path,
  message: string,
  details: IssueDetails & { readonly reason: string },
): Issue {
  return { severity: compat === 'azure' ? 'error' : 'note', code, path, message, ...details };
}

/** Not on the public Internet: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 and loopback. */
const PRIVATE_BLOCKS: readonly Cidr[] = [
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '127.0.0.0/8',
  'fc00::/7',
  'fe80::/10',
  '::1',
].flatMap((text) => parseCidr(text) ?? []);

/** Whether an address could only belong to a public load balancer. */
export function isPublic(address: IpAddress): boolean {
  return !isWildcard(address) && !PRIVATE_BLOCKS.some((block) => cidrContains(block, address));
}

/** Calls `make` for each rule with the first earlier rule that `conflicts` with it. */
export function againstEarlier(
  rules: readonly BoundRule[],
  conflicts: (rule: BoundRule, earlier: BoundRule) => boolean,
  make: (rule: BoundRule, earlier: BoundRule) => Issue,
): readonly Issue[] {
  return rules.flatMap((rule, index) => {
    const earlier = rules.slice(0, index).find((candidate) => conflicts(rule, candidate));
    return earlier === undefined ? [] : [make(rule, earlier)];
  });
}
