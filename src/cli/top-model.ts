import { parseIpAddress } from '../model/address.js';
import type { FlowListQuery } from '../model/operator-views.js';
import { clientOf, type FlowJson, type FlowListJson, type PoolJson, type StatusJson } from './admin-json.js';
import { backendNames } from './flow-text.js';

/** By what flows are sorted; `s` goes through them in this order. */
export const TOP_SORTS = ['age', 'bytes', 'rate', 'idle'] as const;

export type TopSort = (typeof TOP_SORTS)[number];

/** One look at the running process. */
export interface TopData {
  readonly status: StatusJson;
  readonly pools: readonly PoolJson[];
  readonly flows: FlowListJson;
  /** When it was asked, milliseconds since the epoch. */
  readonly atMs: number;
}

/** Everything that decides what is on the screen. Replaced, never changed. */
export interface TopModel {
  readonly panes: 'both' | 'backends' | 'flows';
  readonly sort: TopSort;
  /** Part of a backend's name or of a client's address; empty: all flows. */
  readonly filter: string;
  /** What has been typed of the next filter; undefined: nobody types one. */
  readonly typing: string | undefined;
  readonly paused: boolean;
  readonly help: boolean;
  /** Flows above the first that is shown. */
  readonly scroll: number;
  /** Absent before the first answer. */
  readonly data?: TopData;
  /** Why the last question had no answer. */
  readonly trouble: string | undefined;
}

export const TOP_START: TopModel = {
  panes: 'both',
  sort: 'age',
  filter: '',
  typing: undefined,
  paused: false,
  help: false,
  scroll: 0,
  trouble: undefined,
};

/** Flows asked for where the process can filter; else as many as it gives, to filter here. */
const ENOUGH = 200;
const MAXIMUM = 1000;

/** Which flows to ask for. The process filters where the filter is a whole address or backend. */
export function topQuery({
  sort,
  filter,
  data,
}: TopModel): Pick<FlowListQuery, 'sort' | 'limit'> & Partial<Pick<FlowListQuery, 'source' | 'backend'>> {
  if (filter === '') return { sort, limit: ENOUGH };
  if (parseIpAddress(filter) !== undefined) {
    const isBackend = data?.pools.some(({ backends }) => backends.some(({ address }) => address === filter));
    if (isBackend !== true) return { sort, limit: ENOUGH, source: filter };
  }
  const backend = data?.pools
    .flatMap(({ backends }) => backends)
    .find(({ id, pool, name }) => id === filter || `${pool}/${name}` === filter);
  return backend === undefined ? { sort, limit: MAXIMUM } : { sort, limit: ENOUGH, backend: backend.id };
}

/** The flows to show: those that hold the filter's text, in the order of the model, whatever the answer's order was. */
export function topFlows({ data, filter, sort }: TopModel): readonly FlowJson[] {
  if (data === undefined) return [];
  const names = backendNames(data.pools);
  const text = filter.toLowerCase();
  return data.flows.flows
    .filter(
      (flow) =>
        text === '' ||
        clientOf(flow.tuple).includes(text) ||
        flow.backendId.includes(text) ||
        (names.get(flow.backendId) ?? '').includes(text),
    )
    .toSorted((a, b) => weightFor(sort, b) - weightFor(sort, a));
}

function weightFor(sort: TopSort, flow: FlowJson): number {
  switch (sort) {
    case 'age':
      return -flow.openedAtMs;
    case 'bytes':
      return flow.bytesToBackend + flow.bytesToClient;
    case 'rate':
      return flow.bitsPerSecond ?? 0;
    case 'idle':
      return flow.idleMs;
  }
}
