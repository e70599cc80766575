import { ForwardingCompiler } from '../../src/selection/compiler.js';
import type { Configuration, KernelOptions } from '../../src/model/configuration.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher, type Hash32 } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { configurationOf, type Conditions } from './state-factory.js';

const OPTIONS: KernelOptions = {
  mode: 'nat',
  returnPath: 'route',
  flowState: 'pinned',
  spokes: [],
  onStop: 'keep',
  manageSysctls: false,
};

/** Makes forwarding states of the kernel data plane from configurations as an operator writes them. */
export class KernelStates {
  readonly picker: Picker;
  readonly #hash: Hash32;

  private constructor(hash: Hash32) {
    this.#hash = hash;
    this.picker = new Picker(hash);
  }

  static async create(): Promise<KernelStates> {
    return new KernelStates(await createHasher());
  }

  state(
    raw: object,
    options: Partial<KernelOptions> & { readonly tableSize?: number } = {},
    conditions: Conditions = {},
  ): ForwardingState {
    const { tableSize = 4093, ...some } = options;
    const kernel = { ...OPTIONS, ...some };
    const spokes = kernel.spokes.map(({ text }) => text);
    const written = { ...raw, dataPlane: { kind: 'kernel', kernel: { ...kernel, spokes, tableSize } } };
    // What only some modes take is left to their tests: here it need not fit.
    const configuration: Configuration =
      kernel.mode === 'nat' ? configurationOf(written) : { ...configurationOf(raw), tableSize, kernel };
    return new ForwardingCompiler(this.#hash).compile(configuration, {
      health: ({ name }) => ({ state: conditions.health?.[name] ?? 'up' }),
      override({ name }) {
        const spreadMs = conditions.drained?.[name];
        const drain = spreadMs === undefined ? undefined : ({ ending: true, spreadMs } as const);
        return { adminState: conditions.admin?.[name], drain };
      },
    });
  }
}
