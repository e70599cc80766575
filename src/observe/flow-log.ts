import { configurationToJson } from '../api/configuration-json.js';
import type { Configuration, FlowLogOptions } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { FlowEnded, FlowMoved, FlowStarted, PlaneEvent } from '../model/events.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { Clock } from '../runtime/clock.js';
import type { AppendFiles } from '../runtime/files.js';
import type { Logger } from '../runtime/logger.js';
import { LineWriter, type LineWriterOptions, type LineWriterStats } from './line-writer.js';

export interface FlowLogDependencies {
  readonly files: AppendFiles;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** Which digest the revisions from `revision` on belong to. */
interface DigestChange {
  readonly revision: number;
  readonly digest: string;
}

/** Reloads remembered for the sake of flows that outlive them; older flows get the oldest known digest. */
const DIGEST_MEMORY = 64;

/**
 * The flow log: one JSON object a line, as docs/flow-log.md says. Owns its file from `start` to `stop`. Sampling
 * drops flows, never a configuration or an epoch.
 */
export class FlowLog {
  readonly #clock: Clock;
  readonly #path: string;
  readonly #sample: number;
  readonly #writer: LineWriter;
  #state: ForwardingState | undefined;
  #digests: readonly DigestChange[] = [];

  constructor(
    deps: FlowLogDependencies,
    options: FlowLogOptions,
    buffering: Omit<LineWriterOptions, 'path'> = {},
  ) {
    this.#clock = deps.clock;
    this.#path = options.file;
    this.#sample = options.sample;
    this.#writer = new LineWriter(
      {
        ...deps,
        header: () => this.#header(),
        lostLine: (lines) => lostLine(lines, deps.clock.wallMs()),
      },
      { ...buffering, path: options.file },
    );
  }

  get stats(): LineWriterStats {
    return this.#writer.stats;
  }

  /** Opens the file. Rejects with `LB_CONFIG_INVALID`, since its path is the operator's. */
  async start(): Promise<void> {
    try {
      await this.#writer.start();
    } catch (cause) {
      const found = errorCode(cause) ?? errorMessage(cause);
      const message = `Cannot open flow log "${this.#path}" (${found}): it must be a file that can be appended to`;
      throw new BalancerError(message, { code: 'LB_CONFIG_INVALID', source: 'config', cause });
    }
  }

  /**
   * Records a revision, and its configuration if that is new. Best called before the data plane gets the revision:
   * then no flow line comes before the epoch that it names.
   */
  epoch(state: ForwardingState): void {
    const { configuration, revision } = state;
    const atMs = this.#clock.wallMs();
    const isNew = this.#state?.configuration.digest !== configuration.digest;
    this.#state = state;
    if (isNew) {
      this.#digests = [...this.#digests, { revision, digest: configuration.digest }].slice(-DIGEST_MEMORY);
      this.#writer.write(configLine(configuration, atMs), 'kept');
    }
    this.#writer.write(epochLine(state, atMs), 'kept');
  }

  /** Takes the flow events out of a batch. */
  plane(events: readonly PlaneEvent[]): void {
    for (const event of events) {
      if (event.type !== 'flow-started' && event.type !== 'flow-ended' && event.type !== 'flow-moved')
        continue;
      if (!isSampled(event.flow.id, this.#sample)) continue;
      const digest = this.#digestOf(event.flow.epoch);
      if (event.type === 'flow-started') this.#writer.write(startLine(event, digest), 'ordinary');
      else if (event.type === 'flow-moved') this.#writer.write(moveLine(event, digest), 'ordinary');
      else this.#writer.write(endLine(event, digest), 'ordinary');
    }
  }

  /** Goes on in a newly opened file after the old one was renamed. Never rejects. */
  reopen(): Promise<void> {
    return this.#writer.reopen();
  }

  /** Resolves when all lines so far are written, or writing failed. */
  flush(): Promise<void> {
    return this.#writer.flush();
  }

  /** Writes what waits and closes the file. Idempotent. */
  stop(): Promise<void> {
    return this.#writer.stop();
  }

  #header(): readonly string[] {
    if (this.#state === undefined) return [];
    const atMs = this.#clock.wallMs();
    return [configLine(this.#state.configuration, atMs), epochLine(this.#state, atMs)];
  }

  #digestOf(epoch: number): string {
    const change = this.#digests.findLast(({ revision }) => revision <= epoch) ?? this.#digests[0];
    return change?.digest ?? '';
  }
}

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

/**
 * Whether a flow is in a sample of the given share (0 to 1). Depends on the id alone, so that a flow's start, moves
 * and end are all logged or none is, also across restarts of the log. Consecutive ids spread evenly.
 */
export function isSampled(flowId: number, share: number): boolean {
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
