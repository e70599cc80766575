import { ForwardingCompiler } from '../control/forwarding-compiler.js';
import { parseEndpoint } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import type { FiveTuple, Protocol } from '../model/five-tuple.js';
import { explain } from '../selection/explain.js';
import { createHasher } from '../selection/hasher.js';
import { createPicker } from '../selection/picker.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { explainLive, formatLiveExplanation, type AskedFlow } from './explain-live.js';
import { formatExplanation } from './explain-text.js';
import { printJson, printLines, type LiveOptions } from './live-options.js';
import { loadUsable } from './load-usable.js';
import { usageError } from './option-parsers.js';

export interface ExplainOptions extends LiveOptions {
  /** The configuration was named: it alone is explained. */
  readonly offline: boolean;
  /** `pool/backend` names or ids taken for down; all others for up. Any makes it a question to the configuration. */
  readonly down: readonly string[];
}

/**
 * `haports explain`: which backend a flow goes to and why, as the running process decides; from the configuration
 * alone where it is named, where backends are supposed to be down, or where no process runs.
 */
export async function explainCommand(
  deps: CliDeps,
  flow: AskedFlow,
  options: ExplainOptions,
): Promise<ExitCode> {
  const tuple = parseTuple(flow);
  if (!options.offline && options.down.length === 0) {
    const live = await explainLive(deps, { ...flow, protocol: tuple.protocol }, options);
    if (live !== undefined) {
      if (options.json) printJson(deps, live.explanation);
      else printLines(deps, [formatLiveExplanation(live, deps.clock.wallMs())]);
      return EXIT.fine;
    }
  }
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  const { configuration } = usable;
  const down = downIds(configuration, options.down);
  const hash = await createHasher();
  const state = new ForwardingCompiler(hash).compile(configuration, {
    health: ({ id }) => ({ state: down.has(id) ? 'down' : 'up' }),
    adminState: ({ adminState }) => adminState,
    draining: () => false,
  });
  const explanation = explain(createPicker(hash), state, tuple);
  deps.out(
    options.json
      ? `${JSON.stringify(explanation, undefined, 2)}\n`
      : `${formatExplanation(explanation)}\n${assumption(down.size)}\n`,
  );
  return EXIT.fine;
}

function assumption(downCount: number): string {
  const others = downCount === 0 ? 'Every probe' : 'Every other probe';
  return `${others} is taken for up: this is the configuration alone, no running process was asked`;
}

function parseTuple(flow: AskedFlow): FiveTuple {
  const protocol = flow.protocol.toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp') {
    throw usageError(`Cannot explain protocol "${flow.protocol}": it must be tcp or udp`);
  }
  const source = endpoint('source', flow.source);
  const destination = endpoint('destination', flow.destination);
  if (source.address.family !== destination.address.family) {
    throw usageError(
      `Cannot explain a flow from "${flow.source}" to "${flow.destination}": both must be of one address family`,
    );
  }
  return {
    protocol: protocol satisfies Protocol,
    source: source.address,
    sourcePort: source.port,
    destination: destination.address,
    destinationPort: destination.port,
  };
}

function endpoint(what: string, text: string): NonNullable<ReturnType<typeof parseEndpoint>> {
  const parsed = parseEndpoint(text);
  if (parsed === undefined || parsed.port === 0) {
    throw usageError(
      `Cannot read ${what} "${text}": it must be address:port, as 192.0.2.7:40000 or [2001:db8::7]:40000`,
    );
  }
  return parsed;
}

function downIds(configuration: Configuration, names: readonly string[]): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const name of names) {
    const found = configuration.backendPools.flatMap((pool) =>
      pool.backends.filter((backend) => backend.id === name || `${pool.name}/${backend.name}` === name),
    );
    if (found.length === 0) {
      throw usageError(`Cannot take "${name}" for down: it must be pool/backend as in the configuration`);
    }
    for (const { id } of found) ids.add(id);
  }
  return ids;
}
