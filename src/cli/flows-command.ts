import type { FlowState, PlacementReason } from '../model/flow.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowListQuery } from '../model/operator-views.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { backendNames, formatFlows } from './flow-text.js';
import { formatCount, plural } from './human.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';

export interface FlowsOptions extends LiveOptions {
  readonly rule?: string;
  readonly backend?: string;
  readonly protocol?: Protocol;
  readonly source?: string;
  readonly state?: FlowState;
  readonly reason?: PlacementReason;
  readonly sort: FlowListQuery['sort'];
  readonly limit: number;
}

/** `haports flows`: live flows, filtered and sorted by the process. */
export async function flowsCommand(deps: CliDeps, options: FlowsOptions): Promise<ExitCode> {
  const { rule, backend, protocol, source, state, reason, sort, limit } = options;
  const client = await clientFor(deps, options);
  const query = {
    ...(rule === undefined ? {} : { rule }),
    ...(backend === undefined ? {} : { backend }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(source === undefined ? {} : { source }),
    ...(state === undefined ? {} : { state }),
    ...(reason === undefined ? {} : { reason }),
    sort,
    limit,
  };
  if (options.json) {
    printJson(deps, await client.flows(query));
    return EXIT.fine;
  }
  const [list, pools] = await Promise.all([client.flows(query), client.pools()]);
  const { flows, matched } = list;
  const of = list.next === undefined ? ` of ${formatCount(matched)}` : '';
  printLines(deps, [
    ...(flows.length === 0
      ? []
      : formatFlows(flows, {
          nowMs: deps.clock.wallMs(),
          width: deps.terminal.size().columns,
          names: backendNames(pools),
          sort,
        })),
    flows.length < matched || list.next !== undefined
      ? `${formatCount(flows.length)}${of} flows shown (--limit shows more, filters fewer)`
      : plural(matched, 'flow'),
  ]);
  return EXIT.fine;
}
