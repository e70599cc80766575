import type { FlowListQuery } from '../model/operator-views.js';
import { clientOf, frontendOf, type FlowJson, type PoolJson } from './admin-json.js';
import { formatBytes, formatSi, formatSpan } from './human.js';
import { formatTable, type TableColumn } from './table.js';

/** Left out where no rate is known. */
const RATE = 'BIT/S';

const COLUMNS: readonly TableColumn[] = [
  { title: 'PROTO', importance: 6.5, minimum: 5 },
  { title: 'CLIENT', importance: 12, minimum: 47 },
  { title: 'FRONTEND', importance: 6, minimum: 21 },
  { title: 'BACKEND', importance: 11, minimum: 10 },
  { title: 'REASON', importance: 9, minimum: 10 },
  { title: 'STATE', importance: 4, minimum: 11 },
  { title: 'AGE', align: 'right', importance: 10 },
  { title: 'IDLE', align: 'right', importance: 8 },
  { title: 'TO IT', align: 'right', importance: 3 },
  { title: 'FROM IT', align: 'right', importance: 3 },
  { title: RATE, align: 'right', importance: 7 },
  { title: 'RULE', importance: 2, minimum: 8 },
  { title: 'ENDPOINT', importance: 1, minimum: 12 },
];

/** Columns that tell why one flow stands before another: they give way last. */
const SORTED_BY: Readonly<Record<FlowListQuery['sort'], readonly string[]>> = {
  age: ['AGE'],
  idle: ['IDLE'],
  bytes: ['TO IT', 'FROM IT'],
  rate: [RATE],
  none: [],
};

const FOREMOST = 13;

/** Names of backends by id, for showing flows. */
export function backendNames(pools: readonly PoolJson[]): ReadonlyMap<string, string> {
  return new Map(
    pools.flatMap(({ backends }) => backends.map(({ id, pool, name }) => [id, `${pool}/${name}`])),
  );
}

/** A table of flows, title first. Addresses are not shortened before all else is gone. */
export function formatFlows(
  flows: readonly FlowJson[],
  options: {
    readonly nowMs: number;
    readonly width: number;
    readonly names: ReadonlyMap<string, string>;
    /** What they are sorted by. @default 'none' */
    readonly sort?: FlowListQuery['sort'];
  },
): readonly string[] {
  const { nowMs, width, names, sort = 'none' } = options;
  const hasRates = flows.some(({ bitsPerSecond }) => bitsPerSecond !== undefined);
  const columns = COLUMNS.filter(({ title }) => hasRates || title !== RATE).map((column) =>
    SORTED_BY[sort].includes(column.title) ? { ...column, importance: FOREMOST } : column,
  );
  return formatTable(
    columns,
    flows.map((flow) => [
      flow.tuple.protocol,
      clientOf(flow.tuple),
      frontendOf(flow.tuple),
      names.get(flow.backendId) ?? flow.backendId,
      flow.reason,
      flow.state,
      formatSpan(nowMs - flow.openedAtMs),
      formatSpan(flow.idleMs),
      formatBytes(flow.bytesToBackend),
      formatBytes(flow.bytesToClient),
      ...(hasRates ? [flow.bitsPerSecond === undefined ? '-' : formatSi(flow.bitsPerSecond)] : []),
      flow.rule,
      flow.backendEndpoint,
    ]),
    { width },
  );
}
