import type { DrainStatus } from '../model/drain.js';
import type { Protocol } from '../model/five-tuple.js';
import type {
  BackendPoolView,
  BackendView,
  FlowList,
  ListedFlow,
  StatusView,
} from '../model/operator-views.js';
import type { Explanation } from '../selection/explanation.js';

/*
 * The views of model/operator-views.ts as they come over the admin API: addresses of flows are text there.
 */

export interface TupleJson {
  readonly protocol: Protocol;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export interface FlowJson extends Omit<ListedFlow, 'tuple'> {
  readonly tuple: TupleJson;
}

export interface FlowListJson extends Omit<FlowList, 'flows'> {
  readonly flows: readonly FlowJson[];
}

export interface DrainJson extends Omit<DrainStatus, 'longest'> {
  readonly longest: readonly FlowJson[];
}

export interface StatusJson extends Omit<StatusView, 'drains'> {
  readonly drains: readonly DrainJson[];
}

export interface BackendJson extends Omit<BackendView, 'drain'> {
  readonly drain?: DrainJson;
}

export interface PoolJson extends Omit<BackendPoolView, 'backends'> {
  readonly backends: readonly BackendJson[];
}

export interface ExplanationJson extends Explanation {
  /** The flow as it is now; absent: there is none. */
  readonly flow?: FlowJson;
}

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
