import type { IpAddress } from '../model/address.js';
import { formatFiveTuple, type FiveTuple } from '../model/five-tuple.js';
import type { Configuration } from '../model/configuration.js';
import { readFlowLog, type LogEntry, type RecordedDecision } from './flow-log-reader.js';
import type { RecordedEpoch } from './recorded-state.js';

/** A flow as a flow log has it. */
export interface RecordedFlow {
  readonly tuple: FiveTuple;
  readonly rule: string;
  /** Where it was last: placed, or moved to. */
  readonly backendId: string;
}

/** Kept at most while reading, as a multiple of what is asked for. */
const SLACK = 1.25;

/** Names and addresses remembered, so that flows share them. */
const MOST_SHARED = 65_536;

/** What a flow log tells about traffic. */
export interface RecordedFlows {
  /** One for each five-tuple, of the last that started; the one that started last comes last. */
  readonly flows: readonly RecordedFlow[];
  /** Start lines, those of the same five-tuple and of older flows included. */
  readonly started: number;
  /** Whether older flows were left out. */
  readonly isCut: boolean;
  /** The last of each that could be read. */
  readonly configuration?: Configuration;
  readonly epoch?: RecordedEpoch;
  /** Lines that the log says are missing from it. */
  readonly lost: number;
  readonly damaged: number;
}

/**
 * The flows of a flow log, of each five-tuple the last one, and of those the last `most` that started. Reads it once;
 * what is kept grows with `most`, not with the file. Damaged lines are counted; rejects only if `chunks` does.
 */
export async function readRecordedFlows(
  chunks: AsyncIterable<Uint8Array>,
  { most }: { readonly most: number },
): Promise<RecordedFlows> {
  const reader = new RecordedFlowsReader(most);
  for await (const lines of readFlowLog(chunks)) for (const { entry } of lines) reader.take(entry);
  return reader.result();
}

class RecordedFlowsReader {
  readonly #most: number;
  /** By five-tuple. A Map goes through its keys in the order in which they came. */
  readonly #flows = new Map<string, RecordedFlow>();
  readonly #shared = { text: new Shared<string>(), address: new Shared<IpAddress>() };
  readonly #counts = { started: 0, lost: 0, damaged: 0, isCut: false };
  #configuration: Configuration | undefined;
  #epoch: RecordedEpoch | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  take(entry: LogEntry): void {
    switch (entry.kind) {
      case 'config':
        this.#configuration = entry.configuration;
        return;
      case 'epoch':
        this.#epoch = entry.epoch;
        return;
      case 'decision':
        this.#decision(entry.decision);
        return;
      case 'lost':
        this.#counts.lost += entry.lines;
        return;
      case 'damaged':
        this.#counts.damaged++;
        return;
      case 'end':
      case 'other':
        return;
    }
  }

  result(): RecordedFlows {
    this.#trim();
    return {
      ...this.#counts,
      flows: [...this.#flows.values()],
      ...(this.#configuration === undefined ? {} : { configuration: this.#configuration }),
      ...(this.#epoch === undefined ? {} : { epoch: this.#epoch }),
    };
  }

  #decision({ kind, tuple, rule, backendId }: RecordedDecision): void {
    const key = formatFiveTuple(tuple);
    const isKnown = this.#flows.has(key);
    // Of a flow that started in a file before this one, or was left out, nothing is known.
    if (kind === 'move' && !isKnown) return;
    if (kind === 'start') {
      this.#counts.started++;
      this.#flows.delete(key);
    }
    const { address, text } = this.#shared;
    this.#flows.set(key, {
      tuple: { ...tuple, destination: address.of(tuple.destination.text, tuple.destination) },
      rule: text.of(rule, rule),
      backendId: text.of(backendId, backendId),
    });
    // Many at once: a Map looks through the places of all that were taken out since it last grew.
    if (this.#flows.size > this.#most * SLACK) this.#trim();
  }

  #trim(): void {
    let surplus = this.#flows.size - this.#most;
    if (surplus <= 0) return;
    this.#counts.isCut = true;
    for (const oldest of this.#flows.keys()) {
      if (surplus-- <= 0) return;
      this.#flows.delete(oldest);
    }
  }
}

/** One value for all that are equal: each line of a log brings its own. */
class Shared<T> {
  readonly #values = new Map<string, T>();

  of(key: string, value: T): T {
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    if (this.#values.size >= MOST_SHARED) this.#values.clear();
    this.#values.set(key, value);
    return value;
  }
}
