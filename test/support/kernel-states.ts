import type { Configuration, KernelOptions } from '../../src/model/configuration.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { StateFactory, configurationOf, pickedBackend, type Conditions } from './state-factory.js';
import type { Flow } from './traffic.js';

const OPTIONS: KernelOptions = {
  mode: 'nat',
  returnPath: 'route',
  flowState: 'pinned',
  spokes: [],
  onStop: 'keep',
  manageSysctls: false,
};

/** One frontend, one HA-ports rule and one pool, whose backends are named `b11` and so on after their addresses. */
export function oneRule({
  backends = ['10.2.0.11', '10.2.0.12', '10.2.0.13'],
  rule = {},
  ...top
}: { readonly backends?: readonly string[]; readonly rule?: object; readonly [key: string]: unknown } = {}) {
  const named = backends.map((address) => ({ name: `b${address.split('.').at(-1)}`, address }));
  return {
    frontends: [{ name: 'hub', address: '10.9.0.10' }],
    probes: [{ name: 'alive', protocol: 'tcp', port: 80 }],
    backendPools: [{ name: 'nvas', backends: named }],
    rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true, ...rule }],
    ...top,
  };
}

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
  predict(state: ForwardingState, flow: Flow): string {
    const picked = pickedBackend(this.picker, state, flow);
    return typeof picked === 'string' ? picked : picked.name;
  }
}
