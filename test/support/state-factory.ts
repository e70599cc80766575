import type { Surroundings } from '../../src/config/load.js';
import { ForwardingCompiler } from '../../src/selection/compiler.js';
import { ipAddress } from '../../src/model/address.js';
import type { AdminState, Backend, Configuration, HealthState } from '../../src/model/configuration.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { NONE_EXCLUDED, type Picker } from '../../src/selection/picker.js';
import { parse } from './example.js';
import type { Flow } from './traffic.js';

/** Health and admin state by backend name; `up` and `none` where nothing is said. */
export interface Conditions {
  readonly health?: Readonly<Record<string, HealthState>>;
  readonly admin?: Readonly<Record<string, AdminState>>;
  /** Backends whose drain has come to its deadline, and over how many ms their flows are to end. */
  readonly drained?: Readonly<Record<string, number>>;
}

/** Makes forwarding states the way the control process does, from configurations as an operator writes them. */
export class StateFactory {
  readonly #compiler: ForwardingCompiler;

  private constructor(compiler: ForwardingCompiler) {
    this.#compiler = compiler;
  }

  static async create(): Promise<StateFactory> {
    return new StateFactory(new ForwardingCompiler(await createHasher()));
  }

  state(configuration: object, conditions: Conditions = {}): ForwardingState {
    return this.compile(configurationOf(configuration), conditions);
  }

  /** Of the very same configuration as another state. */
  compile(configuration: Configuration, conditions: Conditions = {}): ForwardingState {
    return this.#compiler.compile(configuration, {
      health: ({ name }) => ({ state: conditions.health?.[name] ?? 'up' }),
      override({ name }) {
        const spreadMs = conditions.drained?.[name];
        const drain = spreadMs === undefined ? undefined : ({ ending: true, spreadMs } as const);
        return { adminState: conditions.admin?.[name], drain };
      },
    });
  }
}

/** What the program makes of a configuration as an operator writes it. Throws with all findings where it has errors. */
export function configurationOf(written: object, surroundings?: Surroundings): Configuration {
  const result = parse(written, surroundings);
  if (result.ok) return result.configuration;
  throw new Error(result.findings.map(({ code, path, message }) => `${code} ${path}: ${message}`).join('\n'));
}

/** The backend that a new flow is placed at, or why there is none. */
export function pickedBackend(
  picker: Picker,
  state: ForwardingState,
  { protocol, source = '', sourcePort = 0, host, port }: Flow,
): Backend | 'no-rule' | 'denied' | 'none' {
  const tuple = {
    ...{ protocol, source: ipAddress(source), sourcePort },
    ...{ destination: ipAddress(host), destinationPort: port },
  };
  const result = picker.pick(state, tuple, NONE_EXCLUDED);
  if (result.kind !== 'picked') return result.kind;
  return state.views[result.viewIndex]!.backends[result.backendIndex]!.backend;
}
