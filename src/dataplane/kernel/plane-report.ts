import type { Configuration } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { KernelReport, KernelState } from '../../model/kernel-report.js';
import type { FlowRecord } from '../../model/flow.js';
import type { ApplyReport, FlowPage, PlaneCounters } from '../data-plane.js';

/** Nothing listens: a frontend counts once for each protocol that it has a rule for. */
export function applyReport({ revision, configuration }: ForwardingState): ApplyReport {
  const count = (protocol: Protocol): number =>
    new Set(
      configuration.rules
        .filter(({ protocols }) => protocols.includes(protocol))
        .map(({ frontend }) => frontend),
    ).size;
  return { revision, listeners: { tcp: count('tcp'), udp: count('udp') }, failures: [] };
}

/** By frontend: protocols that it has rules for, and whether they are in the kernel. */
export function listening(
  state: ForwardingState | undefined,
  kernel: KernelState,
): PlaneCounters['listeners'] {
  const { frontends = [], rules = [] } = state?.configuration ?? {};
  return Object.fromEntries(
    frontends.map(({ name }) => {
      const protocols = rules.filter(({ frontend }) => frontend === name).flatMap((rule) => rule.protocols);
      const wanted = new Set(protocols).size;
      return [name, { open: kernel === 'in-place' ? wanted : 0, wanted }];
    }),
  );
}

/** `kernel nat, return by route`. */
export function modeText(configuration: Configuration | undefined): string {
  const kernel = configuration?.kernel;
  if (kernel === undefined) return 'kernel';
  return kernel.mode === 'nat' ? `kernel nat, return by ${kernel.returnPath}` : `kernel ${kernel.mode}`;
}

export function latestFailure(
  a: KernelReport['lastFailure'],
  b: KernelReport['lastFailure'],
): KernelReport['lastFailure'] {
  return (a?.atMs ?? 0) > (b?.atMs ?? 0) ? a : (b ?? a);
}

/** Flows of backends that serve no more are where they are since they stay. */
export function withPins(page: FlowPage, state: ForwardingState | undefined): FlowPage {
  if (state === undefined) return page;
  const { configuration, views, viewOfRule } = state;
  const serving = new Map(
    configuration.rules.map(({ name }, index) => {
      const backends = views[viewOfRule[index] ?? -1]?.backends ?? [];
      const ids = backends.filter((member) => member.serving).map(({ backend }) => backend.id);
      return [name, new Set(ids)];
    }),
  );
  const isPinned = ({ rule, backendId, reason }: FlowRecord): boolean =>
    reason === 'hash' && serving.get(rule)?.has(backendId) === false;
  return {
    ...page,
    flows: page.flows.map((flow) => (isPinned(flow) ? { ...flow, reason: 'pinned' } : flow)),
  };
}
