import type { Protocol } from '../model/five-tuple.js';
import type { Sourced } from '../model/rule.js';
import type { BoundRule } from './bind-rules.js';

/** Azure's default for load-balancing rules; its documentation gives none for UDP, so 30 s is haports' own. */
const DEFAULT_IDLE_MS: Readonly<Record<Protocol, number>> = { tcp: 240_000, udp: 30_000 };

/** In ms. The frontend's beats the rule's (Azure: the frontend IP's idle timeout takes precedence). */
export function idleTimeoutOf(
  { input, frontend }: Pick<BoundRule, 'input' | 'frontend'>,
  protocol: Protocol,
): Sourced<number> {
  const ofFrontend = frontend.value.idleTimeout?.[protocol];
  if (ofFrontend !== undefined) return { value: ofFrontend, origin: 'frontend' };
  const ofRule = input.idleTimeout?.[protocol];
  if (ofRule !== undefined) return { value: ofRule, origin: 'rule' };
  return { value: DEFAULT_IDLE_MS[protocol], origin: 'default' };
}
