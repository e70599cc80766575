import type { DataPlane, FlowPage, FlowQuery } from '../../../src/planes/contract.js';
import type { FlowRecord } from '../../../src/model/flow.js';

/** A flow table that is paged as a plane pages it, and remembers what it was asked. */
export class FlowPages implements Pick<DataPlane, 'flows'> {
  readonly queries: FlowQuery[] = [];
  records: readonly FlowRecord[];

  constructor(records: readonly FlowRecord[]) {
    this.records = records;
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    this.queries.push(query);
    const { rule, backendId, protocol, source, sourcePort, limit } = query;
    if (limit < 1 || limit > 1000) return Promise.reject(new RangeError(`limit ${limit}`));
    const flows: FlowRecord[] = [];
    for (let index = query.after ?? 0; index < this.records.length; index++) {
      const flow = this.records[index];
      if (flow === undefined) continue;
      if (rule !== undefined && flow.rule !== rule) continue;
      if (backendId !== undefined && flow.backendId !== backendId) continue;
      if (protocol !== undefined && flow.tuple.protocol !== protocol) continue;
      if (source !== undefined && flow.tuple.source.text !== source) continue;
      if (sourcePort !== undefined && flow.tuple.sourcePort !== sourcePort) continue;
      if (flows.length === limit) return Promise.resolve({ flows, next: index });
      flows.push(flow);
    }
    return Promise.resolve({ flows });
  }
}
