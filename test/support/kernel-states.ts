import { ipAddress } from '../../src/model/address.js';
import type { Configuration, KernelOptions } from '../../src/model/configuration.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { NONE_EXCLUDED, Picker } from '../../src/selection/picker.js';
import { StateFactory, configurationOf, type Conditions } from './state-factory.js';
import type { Flow } from './traffic.js';

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
  readonly #factory: StateFactory;

  private constructor(factory: StateFactory, picker: Picker) {
    this.#factory = factory;
    this.picker = picker;
  }

  static async create(): Promise<KernelStates> {
    return new KernelStates(await StateFactory.create(), new Picker(await createHasher()));
  }

  state(
    raw: object,
    options: Partial<KernelOptions> & { readonly tableSize?: number } = {},
    conditions?: Conditions,
  ): ForwardingState {
    const { tableSize = 4093, ...some } = options;
    const kernel = { ...OPTIONS, ...some };
    const spokes = kernel.spokes.map(({ text }) => text);
    const written = { ...raw, dataPlane: { kind: 'kernel', kernel: { ...kernel, spokes, tableSize } } };
    // What only some modes take is left to their tests: here it need not fit.
    const configuration: Configuration =
      kernel.mode === 'nat' ? configurationOf(written) : { ...configurationOf(raw), tableSize, kernel };
    return this.#factory.compile(configuration, conditions);
  }

  /** The name of the backend that a new flow is placed at, or why there is none. */
  predict(state: ForwardingState, { protocol, source = '', sourcePort = 0, host, port }: Flow): string {
    const tuple = {
      ...{ protocol, source: ipAddress(source), sourcePort },
      ...{ destination: ipAddress(host), destinationPort: port },
    };
    const result = this.picker.pick(state, tuple, NONE_EXCLUDED);
    if (result.kind !== 'picked') return result.kind;
    return state.views[result.viewIndex]?.backends[result.backendIndex]?.backend.name ?? '';
  }
}
