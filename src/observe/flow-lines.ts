import type { Configuration } from '../model/configuration.js';
import { configurationToJson } from '../model/configuration-json.js';
import type { FlowEnded, FlowMoved, FlowStarted } from '../model/events.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding-state.js';

/** Grows when a reader of older lines would misread newer ones. */
export const FLOW_LOG_FORMAT = 1;

/** The whole configuration, addresses as text: what a replay starts from. See docs/flow-log.md. */
export function configLine(configuration: Configuration, atMs: number): string {
  const { digest } = configuration;
  return line({
    type: 'config',
    format: FLOW_LOG_FORMAT,
    atMs,
    digest,
    configuration: configurationToJson(configuration),
  });
}

/** What a revision adds to the configuration: who was eligible and with what weight. */
export function epochLine(state: ForwardingState, atMs: number): string {
  return line({
    type: 'epoch',
    atMs,
    revision: state.revision,
    digest: state.configuration.digest,
    views: state.views.map((view) => ({
      key: view.key,
      servingPriority: view.servingPriority,
      backends: view.backends.map((member) => ({
        id: member.backend.id,
        eligible: member.eligible,
        valid: member.valid,
        serving: member.serving,
        weight: member.effectiveWeight,
        health: member.health,
        adminState: member.adminState,
        exclusion: member.exclusion,
      })),
    })),
  });
}

export function startLine(event: FlowStarted, digest: string): string {
  return line({ type: 'start', atMs: event.atMs, ...placement(event.flow, digest) });
}

export function moveLine(event: FlowMoved, digest: string): string {
  return line({
    type: 'move',
    atMs: event.atMs,
    ...placement(event.flow, digest),
    from: event.fromBackendId,
    ...traffic(event.flow),
  });
}

export function endLine(event: FlowEnded, digest: string): string {
  return line({
    type: 'end',
    atMs: event.atMs,
    ...placement(event.flow, digest),
    end: event.end,
    durationMs: Math.max(0, event.atMs - event.flow.openedAtMs),
    ...traffic(event.flow),
  });
}

/** Says where lines are missing, and how many. */
export function lostLine(lines: number, atMs: number): string {
  return line({ type: 'lost', atMs, lines });
}

function placement(flow: FlowRecord, digest: string): object {
  const { tuple } = flow;
  return {
    id: flow.id,
    tuple: {
      protocol: tuple.protocol,
      source: tuple.source.text,
      sourcePort: tuple.sourcePort,
      destination: tuple.destination.text,
      destinationPort: tuple.destinationPort,
    },
    rule: flow.rule,
    backend: flow.backendId,
    endpoint: flow.backendEndpoint,
    reason: flow.reason,
    excluded: flow.excluded,
    epoch: flow.epoch,
    digest,
  };
}

function traffic(flow: FlowRecord): object {
  return {
    bytesToBackend: flow.bytesToBackend,
    packetsToBackend: flow.packetsToBackend,
    bytesToClient: flow.bytesToClient,
    packetsToClient: flow.packetsToClient,
  };
}

function line(content: object): string {
  return `${JSON.stringify(content)}\n`;
}
