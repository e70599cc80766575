import { formatEndpoint } from '../../../model/address.js';
import { PROTOCOL_NUMBER } from '../../../model/five-tuple.js';
import { fnv1a } from '../../../model/fnv1a.js';
import type { Tools } from '../../../nft/tools.js';
import type { KernelInput } from '../kernel-input.js';
import { flowsSet } from '../setup/floating-flows.js';
import { floatingFlows, type FloatingFlow } from '../setup/floating-listing.js';
import { frontendGroups, type FrontendGroup } from '../setup/frontend-dispatch.js';
import type { EntrySource, KernelFlowEntry } from './entry-source.js';

/**
 * Flows of the floating modes, which packets write down in sets of the table: conntrack sees but one direction there.
 * Nobody tells when they come and go, and what backends answer is not counted.
 */
export class FloatingEntries implements EntrySource {
  readonly #tools: Tools;
  readonly #input: () => KernelInput;

  /** `input`: the present one. */
  constructor(tools: Tools, input: () => KernelInput) {
    this.#tools = tools;
    this.#input = input;
  }

  async list(onEntries: (entries: readonly KernelFlowEntry[]) => void): Promise<boolean> {
    const input = this.#input();
    if (input.options.flowState === 'stateless') return true;
    const family = input.options.mode === 'floating-l2' ? 'netdev' : 'inet';
    for (const group of frontendGroups(input)) {
      const args = ['list', 'set', family, input.instance, flowsSet(group)];
      const { exitCode, stdout } = await this.#tools.run('nft', args);
      if (exitCode !== 0) return false;
      onEntries(entriesOf(floatingFlows(stdout), group));
    }
    return true;
  }
}

/** A flow that has moved is there once more, with its old backend, until that element's time is up. */
function entriesOf(flows: readonly FloatingFlow[], group: FrontendGroup): readonly KernelFlowEntry[] {
  const newest = new Map<number, KernelFlowEntry>();
  for (const flow of flows) {
    const entry = entryOf(flow, group);
    const other = newest.get(entry.id);
    if (other === undefined || (entry.idleMs ?? 0) < (other.idleMs ?? 0)) newest.set(entry.id, entry);
  }
  return [...newest.values()];
}

function entryOf(flow: FloatingFlow, { address }: FrontendGroup): KernelFlowEntry {
  const { client, clientPort, frontendPort, protocol, mark, packets, bytes } = flow;
  const ends = { source: client, sourcePort: clientPort };
  const frontend = { destination: address.text, destinationPort: frontendPort };
  return {
    event: 'listed',
    protocol: PROTOCOL_NUMBER[protocol],
    remainingSeconds: Math.ceil(flow.expiresMs / 1000),
    state: protocol === 'tcp' ? 'ESTABLISHED' : '',
    original: { ...ends, ...frontend, packets, bytes },
    reply: {
      ...{ source: address.text, sourcePort: frontendPort, destination: client, destinationPort: clientPort },
      ...{ packets: 0, bytes: 0 },
    },
    ...{ unreplied: false, byProgram: false, mark, ageSeconds: undefined },
    id: fnv1a(Buffer.from(`${protocol} ${client} ${clientPort} ${formatEndpoint(address, frontendPort)}`)),
    idleMs: Math.max(0, flow.timeoutMs - flow.expiresMs),
  };
}
