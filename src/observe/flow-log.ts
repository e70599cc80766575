import { configurationToJson, FLOW_LOG_FORMAT, writeLine } from '../api/flow-log.js';
import type { Configuration, FlowLogOptions } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { EventOf } from '../model/events.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';
import { LineWriter, type LineWriterDependencies } from './line-writer.js';

/** What happens to a flow. */
export type FlowEvent = EventOf<'flow-started' | 'flow-moved' | 'flow-ended'>;

/** Reloads remembered for the sake of flows that outlive them; older flows get the oldest known digest. */
const DIGEST_MEMORY = 64;

/**
 * The flow log: one JSON object a line, as docs/flow-log.md says. Owns its file from `start` until its writer is stopped.
 * Sampling drops flows, never a configuration or an epoch.
 */
export class FlowLog {
  /** Reopens and closes the file, and counts its lines. */
  readonly writer: LineWriter;
  readonly #deps: LineWriterDependencies;
  readonly #options: FlowLogOptions;
  #state: ForwardingState | undefined;
  /** Which digest the revisions from `revision` on belong to. */
  #digests: readonly { readonly revision: number; readonly digest: string }[] = [];

  /** `bufferBytes`: see LineWriter. */
  constructor(deps: LineWriterDependencies, options: FlowLogOptions, bufferBytes?: number) {
    this.#deps = deps;
    this.#options = options;
    const format = {
      header: () => this.#header(),
      lostLine: (lines: number) => writeLine({ type: 'lost', atMs: deps.clock.wallMs(), lines }),
    };
    this.writer = new LineWriter(deps, format, options.file, bufferBytes);
  }

  /** Opens the file. Rejects with `LB_CONFIG_INVALID`, since its path is the operator's. */
  async start(): Promise<void> {
    try {
      await this.writer.start();
    } catch (cause) {
      const found = errorCode(cause) ?? errorMessage(cause);
      const message = `Cannot open flow log "${this.#options.file}" (${found}): it must be a file that can be appended to`;
      throw new BalancerError(message, { code: 'LB_CONFIG_INVALID', source: 'config', cause });
    }
  }

  /**
   * Records a revision, and its configuration if that is new. Best called before the data plane gets the revision:
   * then no flow line comes before the epoch that it names.
   */
  epoch(state: ForwardingState): void {
    const { configuration, revision } = state;
    const isNew = this.#state?.configuration.digest !== configuration.digest;
    this.#state = state;
    if (isNew) {
      this.#digests = [...this.#digests, { revision, digest: configuration.digest }].slice(-DIGEST_MEMORY);
    }
    const atMs = this.#deps.clock.wallMs();
    if (isNew) this.writer.write(configLine(configuration, atMs), 'kept');
    this.writer.write(epochLine(state, atMs), 'kept');
  }

  flow(event: FlowEvent): void {
    if (!isSampled(event.flow.id, this.#options.sample)) return;
    this.writer.write(flowLine(event, this.#digestOf(event.flow.epoch)), 'ordinary');
  }

  #header(): readonly string[] {
    if (this.#state === undefined) return [];
    const atMs = this.#deps.clock.wallMs();
    return [configLine(this.#state.configuration, atMs), epochLine(this.#state, atMs)];
  }

  #digestOf(epoch: number): string {
    const change = this.#digests.findLast(({ revision }) => revision <= epoch) ?? this.#digests[0];
    return change?.digest ?? '';
  }
}

export function configLine(configuration: Configuration, atMs: number): string {
  return writeLine({
    type: 'config',
    format: FLOW_LOG_FORMAT,
    atMs,
    digest: configuration.digest,
    configuration: configurationToJson(configuration),
  });
}

export function epochLine({ revision, configuration, views }: ForwardingState, atMs: number): string {
  return writeLine({
    type: 'epoch',
    atMs,
    revision,
    digest: configuration.digest,
    views: views.map(({ key, servingPriority, backends }) => ({
      key,
      servingPriority,
      backends: backends.map((member) => ({
        id: member.backend.id,
        eligible: member.eligible,
        valid: member.valid,
        serving: member.serving,
        weight: member.effectiveWeight,
        wanted: member.wantedWeight,
        origin: member.weightOrigin,
        ramp: member.rampPercent === 100 ? undefined : member.rampPercent,
        health: member.health,
        adminState: member.adminState,
        exclusion: member.exclusion,
      })),
    })),
  });
}

/** `digest`: of the configuration that placed the flow. */
export function flowLine(event: FlowEvent, digest: string): string {
  const { atMs, flow } = event;
  switch (event.type) {
    case 'flow-started':
      return writeLine({ type: 'start', atMs, ...placement(flow, digest) });
    case 'flow-moved': {
      const { fromBackendId: from } = event;
      return writeLine({ type: 'move', atMs, ...placement(flow, digest), from, ...traffic(flow) });
    }
    case 'flow-ended': {
      const durationMs = Math.max(0, atMs - flow.openedAtMs);
      const { end } = event;
      return writeLine({ type: 'end', atMs, ...placement(flow, digest), end, durationMs, ...traffic(flow) });
    }
  }
}

function placement(flow: FlowRecord, digest: string) {
  const { protocol, source, sourcePort, destination, destinationPort } = flow.tuple;
  return {
    id: flow.id,
    tuple: { protocol, source: source.text, sourcePort, destination: destination.text, destinationPort },
    rule: flow.rule,
    backend: flow.backendId,
    endpoint: flow.backendEndpoint,
    reason: flow.reason,
    excluded: flow.excluded,
    epoch: flow.epoch,
    digest,
  };
}

function traffic({ bytesToBackend, packetsToBackend, bytesToClient, packetsToClient }: FlowRecord) {
  return { bytesToBackend, packetsToBackend, bytesToClient, packetsToClient };
}

/**
 * Whether a flow is in a sample of the given share (0 to 1). Depends on the id alone, so that a flow's start, moves
 * and end are all logged or none is, also across restarts of the log. Consecutive ids spread evenly.
 */
function isSampled(flowId: number, share: number): boolean {
  if (share >= 1) return true;
  return mix32((flowId >>> 0) ^ mix32(Math.floor(flowId / 2 ** 32))) / 2 ** 32 < share;
}

/** The finaliser of MurmurHash3 (Austin Appleby, public domain): every input bit sways every output bit. */
function mix32(value: number): number {
  let hash = value >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
