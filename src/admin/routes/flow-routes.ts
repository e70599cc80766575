import { Hono } from 'hono';
import { parseIpAddress } from '../../model/address.js';
import { PROTOCOLS } from '../../model/five-tuple.js';
import type { FlowState, PlacementReason } from '../../model/flow.js';
import type { FlowListQuery } from '../../model/operator-views.js';
import { usageError } from '../error-problem.js';
import {
  addressOf,
  endpointOf,
  queryFields,
  queryIntegerOf,
  required,
  textOf,
  wordOf,
} from '../request-fields.js';
import type { AdminEnv, AdminRoutesDependencies } from './admin-env.js';
import { jsonAnswer } from './json-answer.js';

export const FLOW_SORTS = ['age', 'idle', 'bytes', 'rate', 'none'] as const satisfies FlowListQuery['sort'][];
export const FLOW_STATES = [
  'embryonic',
  'established',
  'half-closed',
  'blackholed',
] as const satisfies FlowState[];
export const PLACEMENT_REASONS = [
  'hash',
  'retry',
  'rebalanced',
  'fail-open',
  'pinned',
] as const satisfies PlacementReason[];

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;

const FLOW_KEYS = [
  'rule',
  'backend',
  'protocol',
  'source',
  'state',
  'reason',
  'sort',
  'limit',
  'after',
] as const;

/** `GET /v1/flows` and `GET /v1/explain`. */
export function flowRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.get('/v1/flows', async (context) => jsonAnswer(await operations.flows(flowListQuery(context.req.url))));
  app.get('/v1/explain', async (context) => {
    const fields = queryFields(context.req.url, ['protocol', 'source', 'destination']);
    const protocol = required(wordOf(fields, 'protocol', PROTOCOLS), 'protocol');
    const source = required(endpointOf(fields, 'source'), 'source');
    const destination = required(endpointOf(fields, 'destination'), 'destination');
    if (source.address.family !== destination.address.family) {
      throw usageError('"source" and "destination" must be of the same IP version');
    }
    return jsonAnswer(
      await operations.explain({
        protocol,
        source: source.address,
        sourcePort: source.port,
        destination: destination.address,
        destinationPort: destination.port,
      }),
    );
  });
  return app;
}

function flowListQuery(url: string): FlowListQuery {
  const fields = queryFields(url, FLOW_KEYS);
  const rule = textOf(fields, 'rule');
  const backend = textOf(fields, 'backend');
  const protocol = wordOf(fields, 'protocol', PROTOCOLS);
  const source = addressOf(fields, 'source');
  const state = wordOf(fields, 'state', FLOW_STATES);
  const reason = wordOf(fields, 'reason', PLACEMENT_REASONS);
  const sort = wordOf(fields, 'sort', FLOW_SORTS) ?? 'none';
  const limit = queryIntegerOf(fields, 'limit', { from: 1, to: MAX_LIMIT }) ?? DEFAULT_LIMIT;
  const after = queryIntegerOf(fields, 'after', { from: 0, to: Number.MAX_SAFE_INTEGER });
  if (after !== undefined && sort !== 'none') throw usageError('"after" must be with sort none only');
  return {
    ...(rule === undefined ? {} : { rule }),
    ...(backend === undefined ? {} : { backend: canonicalBackend(backend) }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(source === undefined ? {} : { source: source.text }),
    ...(state === undefined ? {} : { state }),
    ...(reason === undefined ? {} : { reason }),
    sort,
    limit,
    ...(after === undefined ? {} : { after }),
  };
}

/** `pool/name` or `pool/address` as Operations know it: addresses in canonical form. */
export function canonicalBackend(text: string): string {
  const slash = text.indexOf('/');
  const address = parseIpAddress(text.slice(slash + 1));
  return slash === -1 || address === undefined ? text : `${text.slice(0, slash)}/${address.text}`;
}
