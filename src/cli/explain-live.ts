import { BalancerError } from '../model/errors.js';
import { AdminClient } from './admin-client.js';
import type { ExplanationJson, FlowJson } from './admin-json.js';
import { adminTarget, configuredSocket, describeTarget, type ConnectionOptions } from './admin-target.js';
import type { CliDeps } from './cli-deps.js';
import { formatExplanation } from './explain-text.js';
import { formatBytes, formatSpan, plural } from './human.js';
import { printable } from './table.js';
import { wrapWords } from './wrap-words.js';

/** The flow that is asked about, as text. */
export interface AskedFlow {
  readonly protocol: string;
  readonly source: string;
  readonly destination: string;
}

export interface LiveExplanation {
  readonly explanation: ExplanationJson;
  /** Who was asked. */
  readonly place: string;
}

/**
 * Asks the running process. Undefined where none was named and none answers at the configuration's socket: then the
 * configuration alone is explained. Throws where one was named and does not answer, or refuses.
 */
export async function explainLive(
  deps: Pick<CliDeps, 'env' | 'readText'>,
  flow: AskedFlow,
  options: ConnectionOptions,
): Promise<LiveExplanation | undefined> {
  const isNamed =
    options.socket !== undefined || options.http !== undefined || (deps.env['HAPORTS_SOCKET'] ?? '') !== '';
  const socket = isNamed ? undefined : await configuredSocket(deps, options.config).catch(() => undefined);
  if (!isNamed && socket === undefined) return undefined;
  const target =
    socket === undefined ? await adminTarget(deps, options) : { kind: 'socket' as const, path: socket };
  try {
    return { explanation: await new AdminClient(target).explain(flow), place: describeTarget(target) };
  } catch (error) {
    if (!isNamed && error instanceof BalancerError && error.code === 'LB_NOT_RUNNING') return undefined;
    throw error;
  }
}

/** A live explanation for people, with the flow itself where there is one. Ends without a newline. */
export function formatLiveExplanation({ explanation, place }: LiveExplanation, nowMs: number): string {
  const { flow, verdict } = explanation;
  return [
    formatExplanation(explanation),
    ...(flow === undefined ? [] : flowLines(flow, nowMs)),
    ...wrapWords(printable(`Verdict      ${verdict}`), 80, 13),
    `As the process at ${printable(place)} decides now`,
  ].join('\n');
}

function flowLines(flow: FlowJson, nowMs: number): readonly string[] {
  return [
    `Live flow    ${flow.state}, with ${flow.backendId} at ${flow.backendEndpoint}`,
    `             ${whyThere(flow)}`,
    `             opened ${formatSpan(nowMs - flow.openedAtMs)} ago at revision ${flow.epoch}, idle ${formatSpan(flow.idleMs)}`,
    `             to the backend ${formatBytes(flow.bytesToBackend)} in ${plural(flow.packetsToBackend, 'packet')},`,
    `             to the client ${formatBytes(flow.bytesToClient)} in ${plural(flow.packetsToClient, 'packet')}`,
    ...(flow.excluded.length === 0 ? [] : [`             left out when placed: ${flow.excluded.join(', ')}`]),
  ].map(printable);
}

function whyThere({ reason }: FlowJson): string {
  return {
    hash: 'placed by its hash',
    retry: 'placed with another backend, the first could not be reached or was full',
    rebalanced: 'moved there by the flow policy',
    'fail-open': 'placed while nobody was eligible (fail-open)',
    pinned: 'pinned: its hash would now choose another, but it stays',
  }[reason];
}
