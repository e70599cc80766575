import { flowView, type Explanation, type LiveExplanation } from '../api/views.js';
import { compareAddresses, type FiveTuple } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';
import { allFlows, type DataPlane } from '../planes/contract.js';
import { explain } from '../selection/explain.js';
import type { Picker } from '../selection/picker.js';

export interface LiveExplainInputs {
  readonly picker: Picker;
  readonly state: ForwardingState;
  readonly plane: Pick<DataPlane, 'flows'>;
  readonly tuple: FiveTuple;
}

/**
 * As explain, on the state that the plane has, with the live flow, wherever it is. Throws TypeError where source and destination are of two families.
 */
export async function liveExplain({
  picker,
  state,
  plane,
  tuple,
}: LiveExplainInputs): Promise<LiveExplanation> {
  const explanation = explain(picker, state, tuple);
  const flow = await findFlow(plane, tuple);
  const { result } = explanation;
  const agrees = result.kind === 'picked' && result.backendId === flow?.backendId;
  return {
    ...explanation,
    flow: flow && flowView(flow),
    agrees: flow && agrees,
    verdict: explainVerdict(explanation, flow, state.configuration),
  };
}

/** Whichever rule and backend it has: they may be of a configuration that is gone. */
async function findFlow(plane: Pick<DataPlane, 'flows'>, tuple: FiveTuple): Promise<FlowRecord | undefined> {
  const { protocol, source, sourcePort } = tuple;
  for await (const flow of allFlows(plane, { protocol, source: source.text, sourcePort })) {
    if (isSame(flow.tuple, tuple)) return flow;
  }
  return undefined;
}

function isSame(a: FiveTuple, b: FiveTuple): boolean {
  return (
    a.protocol === b.protocol &&
    a.sourcePort === b.sourcePort &&
    a.destinationPort === b.destinationPort &&
    compareAddresses(a.source, b.source) === 0 &&
    compareAddresses(a.destination, b.destination) === 0
  );
}

/** A sentence: where a new flow would go, where the live one is, and why these differ where they do. Pure. */
export function explainVerdict(
  explanation: Explanation,
  flow: FlowRecord | undefined,
  configuration: Configuration,
): string {
  if (flow === undefined) return `No such flow is live; a new one ${outcome(explanation, configuration)}`;
  if (flow.backendId === '')
    return `The flow is live, but on no backend yet; a new one ${outcome(explanation, configuration)}`;
  const here = `The live flow is on ${nameOf(flow.backendId, configuration)}`;
  const { result, rule } = explanation;
  if (result.kind === 'picked' && result.backendId === flow.backendId) {
    return `${here}, where a new one would go too`;
  }
  const because =
    rule !== undefined && rule.name !== flow.rule
      ? `it came by rule "${flow.rule}", and a new one would come by "${rule.name}"`
      : explanation.table?.perPacket === true
        ? `the rule balances each datagram by itself, and the flow is listed under its first one's backend`
        : placement(flow, configuration);
  return `${here}, but a new one ${outcome(explanation, configuration)}: ${because}`;
}

function outcome({ result, endpoint }: Explanation, configuration: Configuration): string {
  switch (result.kind) {
    case 'picked':
      return `would go to ${nameOf(result.backendId, configuration)} at ${endpoint?.text ?? '?'}`;
    case 'none':
      return `would find no eligible backend and be ${result.action === 'drop' ? 'dropped' : 'reset'}`;
    case 'denied':
      return 'would be denied by the frontend';
    case 'no-rule':
      return 'would find no rule';
  }
}

/** Why the flow was placed where it is, and what may have changed since. */
function placement(flow: FlowRecord, configuration: Configuration): string {
  switch (flow.reason) {
    case 'retry': {
      const names = flow.excluded.map((id) => nameOf(id, configuration)).join(', ');
      const who = names === '' ? 'the first choice' : names;
      return `retry, ${who} could not take it when it came (not reached, or at its cap)`;
    }
    case 'rebalanced':
      return `rebalanced, flow policy moved it there in revision ${flow.epoch}`;
    case 'fail-open':
      return `fail-open, no backend was eligible when it was placed (revision ${flow.epoch})`;
    case 'hash':
    case 'pinned':
      return `pinned, revision ${flow.epoch} placed it and flows stay while their backend may keep them`;
  }
}

function nameOf(backendId: string, { backendPools }: Configuration): string {
  for (const pool of backendPools) {
    const backend = pool.backends.find(({ id }) => id === backendId);
    if (backend !== undefined) return `${pool.name}/${backend.name}`;
  }
  return backendId;
}
