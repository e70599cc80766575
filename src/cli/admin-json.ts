import type { LiveExplanation } from '../control/live-explain.js';
import type { DrainStatus } from '../model/drain.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type {
  BackendPoolView,
  BackendView,
  FlowList,
  ListedFlow,
  StatusView,
} from '../model/operator-views.js';
import type { AsJson } from '../model/plain-json.js';

/*
 * The views of model/operator-views.ts as they come over the admin API.
 */

export type TupleJson = AsJson<FiveTuple>;
export type FlowJson = AsJson<ListedFlow>;
export type FlowListJson = AsJson<FlowList>;
export type DrainJson = AsJson<DrainStatus>;
export type StatusJson = AsJson<StatusView>;
export type BackendJson = AsJson<BackendView>;
export type PoolJson = AsJson<BackendPoolView>;
export type ExplanationJson = LiveExplanation;

/** `192.0.2.7:40000`, `[2001:db8::7]:40000`. */
export function clientOf({ source, sourcePort }: TupleJson): string {
  return endpointText(source, sourcePort);
}

export function frontendOf({ destination, destinationPort }: TupleJson): string {
  return endpointText(destination, destinationPort);
}

function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
