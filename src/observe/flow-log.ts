import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { FlowLogOptions } from '../model/configuration.js';
import type { PlaneEvent } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { AppendFiles } from '../runtime/append-file.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { configLine, endLine, epochLine, lostLine, moveLine, startLine } from './flow-lines.js';
import { isSampled } from './flow-sampling.js';
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
