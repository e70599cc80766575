import type { Protocol } from '../model/address.js';
import type { Configuration, FlowAction, FlowTrigger, KernelOptions, Rule } from '../model/configuration.js';
import type { PoolView } from '../model/forwarding.js';
import { formatPortSet } from '../model/ports.js';

/** Whether a TCP flow can go on with another backend: where packets only pass through it, as they are. */
export type TcpRebalance = 'resets' | 'moves';

export function tcpRebalance(kernel: Pick<KernelOptions, 'mode'> | undefined): TcpRebalance {
  return kernel === undefined || kernel.mode === 'nat' ? 'resets' : 'moves';
}

/**
 * What happens to a flow whose backend met the trigger. A TCP stream that its backend ends cannot be moved, so
 * `rebalance` resets it. Under `allDown: fail-open` a UDP flow that would move stays while there is nowhere better to go.
 */
export function policyVerdict(
  rule: Rule,
  protocol: Protocol,
  trigger: FlowTrigger,
  view: PoolView,
  tcp: TcpRebalance = 'resets',
): FlowAction {
  const configured = rule.flowPolicy[trigger][protocol];
  if (configured !== 'rebalance') return configured;
  if (protocol === 'tcp' && tcp === 'resets') return 'reset';
  const nowhereBetter = view.table.length === 0 && rule.allDown === 'fail-open' && trigger === 'probe-down';
  return nowhereBetter ? 'persist' : 'rebalance';
}

/**
 * Which rule of another configuration a rule goes on as: the one of its name, and else, if the name is gone, one whose
 * name is new and that is the same otherwise (frontend address, pool, ports, HA ports, a protocol in common; of several
 * the one with most protocols in common, then the first). Old name to new name; rules that end are missing. Flows of a
 * protocol that the new rule no longer has end all the same where the name has changed.
 */
export function ruleSuccessors(before: Configuration, after: Configuration): ReadonlyMap<string, string> {
  const namesBefore = new Set(before.rules.map(({ name }) => name));
  const namesAfter = new Set(after.rules.map(({ name }) => name));
  const heirs = new Map<string, Rule[]>();
  for (const rule of after.rules) {
    if (namesBefore.has(rule.name)) continue;
    const key = identityOf(rule);
    heirs.set(key, [...(heirs.get(key) ?? []), rule]);
  }
  const successors = new Map<string, string>();
  for (const rule of before.rules) {
    const heir = namesAfter.has(rule.name) ? rule : nearest(rule, heirs.get(identityOf(rule)) ?? []);
    if (heir !== undefined) successors.set(rule.name, heir.name);
  }
  return successors;
}

function nearest({ protocols }: Rule, heirs: readonly Rule[]): Rule | undefined {
  const common = (heir: Rule): number =>
    heir.protocols.filter((protocol) => protocols.includes(protocol)).length;
  return heirs.filter((heir) => common(heir) > 0).sort((a, b) => common(b) - common(a))[0];
}

/** All that makes a rule what it is but for its name and protocols, as one word. */
function identityOf({ frontend, pool, haPorts, ports }: Rule): string {
  return [frontend.address.text, pool.name, haPorts, formatPortSet(ports)].join(' ');
}
