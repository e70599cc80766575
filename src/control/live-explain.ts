import type { DataPlane } from '../dataplane/data-plane.js';
import { compareAddresses } from '../model/address.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { AsJson } from '../model/plain-json.js';
import { explain } from '../selection/explain.js';
import type { Explanation } from '../selection/explanation.js';
import type { Picker } from '../selection/picker.js';
import { allFlows } from './all-flows.js';
import { explainVerdict } from './explain-verdict.js';

/** Where a tuple would go now, and where its live flow is. Plain data. */
export interface LiveExplanation extends Explanation {
  /** Of exactly this five-tuple; absent: none is live. */
  readonly flow?: AsJson<FlowRecord>;
  /** Whether that flow is where a new one would go now; absent: none is live. */
  readonly agrees?: boolean;
  /** Both in a sentence, and why they differ. */
  readonly verdict: string;
}

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
  const agrees = flow !== undefined && result.kind === 'picked' && result.backendId === flow.backendId;
  return {
    ...explanation,
    ...(flow === undefined ? {} : { flow: flowInText(flow), agrees }),
    verdict: explainVerdict(explanation, flow, state.configuration),
  };
}

/** As text are the addresses. */
export function flowInText(flow: FlowRecord): AsJson<FlowRecord> {
  const { tuple } = flow;
  return { ...flow, tuple: { ...tuple, source: tuple.source.text, destination: tuple.destination.text } };
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
