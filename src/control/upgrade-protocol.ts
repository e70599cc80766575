import type { UdpFlowState } from '../dataplane/hand-over.js';
import type { Protocol } from '../model/five-tuple.js';
import type { Legacy } from './legacy.js';

/**
 * What the messages of an upgrade mean. It grows when a version could misunderstand another; then the old process goes
 * on, and only a restart brings the new version.
 */
export const UPGRADE_PROTOCOL = 1;

/** New process to old, in this order; `failed` at any time. */
export type SuccessorMessage =
  /** It runs, and its configuration can be used. */
  | { readonly kind: 'hello'; readonly protocol: number; readonly version: string }
  /** It has the sockets and a verdict on its backends: all that can fail slowly is done. */
  | { readonly kind: 'ready' }
  /** It takes connections and datagrams. */
  | { readonly kind: 'serving' }
  | { readonly kind: 'failed'; readonly message: string };

/** Comes with a raw handle. */
export interface HandedSocket {
  readonly kind: 'socket';
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
}

/** Old process to new, in this order. */
export type PredecessorMessage =
  | { readonly kind: 'legacy'; readonly legacy: Legacy }
  | HandedSocket
  /** All sockets have been sent: so many. */
  | { readonly kind: 'sockets-sent'; readonly count: number }
  /** The old process reads no UDP any more. */
  | { readonly kind: 'take-over'; readonly udpFlows: readonly UdpFlowState[] }
  /** The admin and metrics ports are free. */
  | { readonly kind: 'released' };
