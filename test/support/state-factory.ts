import { parseConfiguration } from '../../src/config/load.js';
import { ForwardingCompiler } from '../../src/selection/compiler.js';
import type { AdminState, Configuration, HealthState } from '../../src/model/configuration.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { createHasher } from '../../src/selection/flow-hash.js';

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

/** Throws with all findings where the configuration is not usable. */
export function configurationOf(configuration: object): Configuration {
  const result = parseConfiguration(JSON.stringify(configuration));
  if (!result.ok) {
    throw new Error(
      result.findings.map(({ code, path, message }) => `${code} ${path}: ${message}`).join('\n'),
    );
  }
  return result.configuration;
}
