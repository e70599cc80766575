import type { DataPlane, FlowQuery } from '../dataplane/data-plane.js';
import type { FlowRecord } from '../model/flow.js';

/** A page of the flow table: the largest that a plane gives. */
const PAGE = 1000;

/** The flow table page by page, never as a whole. Flows that come and go meanwhile may be missed or be there twice. */
export async function* allFlows(
  plane: Pick<DataPlane, 'flows'>,
  query: Omit<FlowQuery, 'after' | 'limit'> = {},
): AsyncGenerator<FlowRecord> {
  let after: number | undefined;
  do {
    const page = await plane.flows({ ...query, limit: PAGE, ...(after === undefined ? {} : { after }) });
    yield* page.flows;
    after = page.next;
  } while (after !== undefined);
}
