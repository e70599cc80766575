import type { CompilerInputs, ForwardingCompiler } from '../../../src/selection/compiler.js';
import { fromBytes, type FiveTuple } from '../../../src/model/address.js';
import type { Configuration, HealthState } from '../../../src/model/configuration.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { configLine, epochLine, flowLine } from '../../../src/observe/flow-log.js';
import type { Picker } from '../../../src/selection/picker.js';
import { aFlowRecord } from '../status/counters-fixtures.js';

/** Writes a flow log as a running process does: states from the compiler, decisions from the picker. */
export class LogRecorder {
  readonly lines: string[] = [];
  readonly #compiler: ForwardingCompiler;
  readonly #picker: Picker;
  #state: ForwardingState | undefined;
  #flowId = 0;

  constructor(compiler: ForwardingCompiler, picker: Picker) {
    this.#compiler = compiler;
    this.#picker = picker;
  }

  get state(): ForwardingState {
    if (this.#state === undefined) throw new Error('No epoch has begun');
    return this.#state;
  }

  /** A new revision. */
  epoch(
    configuration: Configuration,
    health: Readonly<Record<string, HealthState>> = {},
    inputs: Partial<CompilerInputs> = {},
  ): void {
    const isNew = this.#state?.configuration.digest !== configuration.digest;
    this.#state = this.#compiler.compile(configuration, {
      health: ({ id }) => ({ state: health[id] ?? 'up' }),
      ...inputs,
    });
    if (isNew) this.lines.push(configLine(configuration, 1000));
    this.lines.push(epochLine(this.#state, 1000));
  }

  /** Places a flow and logs it. False: nobody takes it, and nothing is logged. */
  place(tuple: FiveTuple, excluded: readonly string[] = []): boolean {
    const pick = this.#picker.pick(this.state, tuple, new Set(excluded));
    if (pick.kind !== 'picked') return false;
    const rule = this.state.configuration.rules[pick.ruleIndex]?.name ?? '';
    this.log({ tuple, rule, backendId: pick.backendId, reason: pick.reason, excluded });
    return true;
  }

  log(flow: Pick<FlowRecord, 'tuple' | 'rule' | 'backendId' | 'reason'> & Partial<FlowRecord>): void {
    const id = ++this.#flowId;
    const record = aFlowRecord(id, { epoch: this.state.revision, openedAtMs: 1000, ...flow });
    this.lines.push(
      flowLine({ type: 'flow-started', atMs: 1000, flow: record }, this.state.configuration.digest),
    );
  }

  get text(): string {
    return this.lines.join('');
  }
}

/** Random flows to 198.51.100.1, the same for the same seed (xorshift32, Marsaglia 2003). */
export function* randomFlows(count: number, seed: number): Generator<FiveTuple> {
  let state = seed;
  const random = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  for (let flow = 0; flow < count; flow++) {
    yield {
      protocol: random(2) === 0 ? 'tcp' : 'udp',
      source: fromBytes([192, random(256), random(256), random(256)]),
      sourcePort: 1 + random(65_535),
      destination: fromBytes([198, 51, 100, 1]),
      destinationPort: 1 + random(65_535),
    };
  }
}

/** A file's bytes in pieces of odd sizes, so that lines and characters are cut anywhere. */
export async function* inPieces(text: string, size = 1009): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let start = 0; start < bytes.length; start += size) {
    yield await Promise.resolve(bytes.subarray(start, start + size));
  }
}
