import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { Balancer } from '../../src/control/balancer.js';
import { Drains } from '../../src/control/drains.js';
import { Operator } from '../../src/control/operator.js';
import { Reloader } from '../../src/control/reload.js';
import { loadConfigurationText } from '../../src/config/load.js';
import { ProbeScheduler } from '../../src/health/scheduler.js';
import type { ProbeRunner } from '../../src/health/probes.js';
import { ProbeHealth } from '../../src/health/tracker.js';
import { ipAddress, type Protocol } from '../../src/model/address.js';
import type { AdminState, ProbeResult } from '../../src/model/configuration.js';
import { parseDuration } from '../../src/model/duration.js';
import { errorCode, errorMessage } from '../../src/model/errors.js';
import { describeEvent, type ControlEvent } from '../../src/model/events.js';
import type { FlowRecord } from '../../src/model/flow.js';
import type { BackendState, ForwardingState } from '../../src/model/forwarding.js';
import type { ApplyReport, DataPlane } from '../../src/planes/contract.js';
import { systemFiles } from '../../src/runtime/files.js';
import { ForwardingCompiler } from '../../src/selection/compiler.js';
import type { Hash32 } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { patched } from '../corpus/configurations.js';
import { FakeClock } from '../support/fake-clock.js';
import { configurationOf } from '../support/state-factory.js';
import { aFlowRecord, aReading, aRow } from '../unit/status/counters-fixtures.js';

/** What scenarios change something of. */
const BASE = {
  frontends: [{ name: 'hub', address: '127.0.0.1' }],
  probes: [{ name: 'alive', protocol: 'http', port: 9000, interval: '1s', threshold: 2 }],
  backendPools: [
    {
      name: 'nvas',
      backends: ['nva-1', 'nva-2', 'nva-3'].map((name) => ({ name, address: addressOf(name) })),
    },
  ],
  rules: [
    {
      ...{ name: 'ha-ports', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true },
      ...{ listenPorts: '8000-8009', flowPolicy: 'firewall' },
    },
  ],
};

const ANSWERS = {
  up: { verdict: 'success', answer: 'explicit', evidence: 'HTTP 200', durationMs: 1 },
  sick: { verdict: 'failure', answer: 'explicit', evidence: 'HTTP 503', durationMs: 1 },
  silent: { verdict: 'failure', answer: 'silence', evidence: 'no answer', durationMs: 1000 },
} as const satisfies Readonly<Record<string, ProbeResult>>;

interface Parts {
  readonly balancer: Balancer;
  readonly reloader: Reloader;
  readonly operator: Operator;
}

/** How finely time goes by. */
const STEP_MS = 50;

/** Turns of the event loop in which everything that waits for no timer is over. */
const TURNS = 10;

/** What the data plane does with a state that it is given. */
type Mood = 'accepts' | 'refuses' | 'waits';

/**
 * The control loop for real, on a clock that a scenario moves: probes are answered as it says, the data plane accepts
 * what it is given unless told otherwise. Everything that happens is written down: log lines, and forwarding states as
 * each backend's share of the table or why it has none.
 */
export class ControlLoop {
  readonly #clock = new FakeClock();
  readonly #answers = new Map<string, ProbeResult>();
  readonly #flows = new Map<string, Readonly<Record<Protocol, number>>>();
  readonly #written: string[] = [];
  readonly #hash: Hash32;
  #configuration: object = BASE;
  #plane: Mood = 'accepts';
  /** Calls of the data plane that wait for an answer. */
  readonly #calls: (() => void)[] = [];
  #parts: Parts | undefined;

  constructor(hash: Hash32) {
    this.#hash = hash;
  }

  /** Does what a line says, and returns what came of it so far. */
  async run(line: string): Promise<readonly string[]> {
    const [command = '', ...words] = line.split(' ');
    let late = '';
    void this.#run(command, words).then(
      () => {
        if (late !== '') this.#write(`${late}done`);
      },
      (error: unknown) => this.#write(`${late}${errorCode(error) ?? 'Error'}: ${errorMessage(error)}`),
    );
    for (let turn = 0; turn < TURNS; turn++) {
      this.#clock.advance(0);
      await setImmediate();
    }
    late = `${line}: `;
    return this.#written.splice(0);
  }

  /** Lets time go by. */
  async wait(duration: string): Promise<readonly string[]> {
    await this.#clock.advanceAsync(durationOf(duration), STEP_MS);
    return this.#written.splice(0);
  }

  async #run(command: string, words: readonly string[]): Promise<unknown> {
    const [name = '', second = ''] = words;
    const backend = `nvas/${name}`;
    const patch = () => {
      const changes = words.length === 0 ? {} : (JSON.parse(words.join(' ')) as Record<string, unknown>);
      return patched(this.#configuration, changes);
    };
    if (command === 'configuration') {
      this.#configuration = patch();
      return;
    }
    const { operator, reloader, balancer } = (this.#parts ??= this.#create());
    switch (command) {
      case 'probe':
        return this.#answers.set(addressOf(name), ANSWERS[second as keyof typeof ANSWERS]);
      case 'flows':
        return this.#flows.set(`nvas/${addressOf(name)}`, { tcp: Number(second), udp: Number(words[2]) });
      case 'plane':
        this.#plane = name as Mood;
        for (const answer of this.#calls.splice(0)) answer();
        return;
      case 'start':
        return balancer.start();
      case 'admin-state':
        return operator.setAdminState(backend, second as AdminState | 'configured');
      case 'weight':
        return operator.setWeight(backend, second === 'configured' ? second : Number(second));
      case 'drain': {
        const [, deadline = '', then = 'reset', spread = '0s', force] = words;
        return operator.drain(backend, {
          ...{ deadlineMs: durationOf(deadline), then: then as 'reset' | 'leave' },
          ...{ spreadMs: durationOf(spread), force: force === 'force' },
        });
      }
      case 'cancel-drain':
        return operator.cancelDrain(backend);
      case 'plan': {
        const { report } = await reloader.plan(JSON.stringify(patch()));
        const { stay, move, reset, drop } = report.flows;
        this.#write(`flows: ${stay} stay, ${move} move, ${reset} reset, ${drop} drop`);
        for (const [index, step] of report.steps.entries()) this.#write(`${index + 1}. ${step}`);
        return;
      }
      case 'reload': {
        const wanted = patch();
        await reloader.reload(JSON.stringify(wanted), { cause: 'scenario' });
        this.#configuration = wanted;
        return;
      }
      case 'stop':
        return balancer.stop('scenario', durationOf(name));
      default:
        return unknown(command);
    }
  }

  #create(): Parts {
    const clock = this.#clock;
    const runner: ProbeRunner = { run: (_, address, signal) => this.#answer(address.text, signal) };
    const health = new ProbeHealth(new ProbeScheduler({ clock, runner, random: () => 0 }));
    const plane = this.#createPlane();
    const onEvent = (event: ControlEvent): void => {
      const said = describeEvent(event, 'port-sockets');
      // A state that is written and not refused has been applied.
      if (said !== undefined && event.type !== 'applied') this.#write(`${said.level} ${said.message}`);
    };
    const onState = (state: ForwardingState): void => {
      this.#write(`revision ${state.revision}: ${state.views.map(describeView).join(' | ')}`);
    };
    const compiler = new ForwardingCompiler(this.#hash);
    const deps = { clock, plane, health, compiler, onEvent, onState };
    const balancer = new Balancer(deps, configurationOf(this.#configuration));
    const { overrides } = balancer;
    const drains = new Drains({ clock, plane, overrides, refresh: () => balancer.refresh(), onEvent });
    const reloader = new Reloader({
      ...{ clock, balancer, plane, drains, onEvent, picker: new Picker(this.#hash) },
      parse: (text) => loadConfigurationText(text, '.', systemFiles),
    });
    return { balancer, reloader, operator: new Operator({ balancer, drains, onEvent }) };
  }

  async #answer(address: string, signal: AbortSignal): Promise<ProbeResult> {
    const answer = this.#answers.get(address) ?? ANSWERS.up;
    if (answer.answer === 'silence') await once(signal, 'abort');
    return answer;
  }

  #createPlane(): DataPlane {
    const apply = ({ revision }: ForwardingState): Promise<ApplyReport> =>
      new Promise((resolve, reject) => {
        const answer = (): void => {
          if (this.#plane === 'waits') this.#calls.push(answer);
          else if (this.#plane === 'refuses') reject(new Error('EMFILE: too many open files'));
          else resolve({ revision, listeners: { tcp: 10, udp: 10 }, failures: [] });
        };
        answer();
      });
    const live = () =>
      [...this.#flows].flatMap(([backendId, flows]) => flowsOn(backendId, this.#ruleName(), flows));
    return {
      start: apply,
      apply,
      stop: () => Promise.resolve({ finished: live().length, reset: 0 }),
      subscribe: () => () => undefined,
      flows: ({ backendId }) =>
        Promise.resolve({ flows: live().filter((flow) => [undefined, flow.backendId].includes(backendId)) }),
      counters: () =>
        Promise.resolve(
          aReading({
            traffic: [...this.#flows].flatMap(([backendId, { tcp, udp }]) => [
              aRow({ backendId, flowsActive: tcp }),
              aRow({ backendId, protocol: 'udp', flowsActive: udp }),
            ]),
          }),
        ),
      flowCount: () => live().length,
      answer: () => Promise.resolve(),
    };
  }

  /** All flows are of the first rule. */
  #ruleName(): string {
    return this.#parts?.balancer.state?.configuration.rules[0]?.name ?? '';
  }

  #write(line: string): void {
    this.#written.push(`${(this.#clock.monotonicMs() / 1000).toFixed(2)} ${line}`);
  }
}

function flowsOn(
  backendId: string,
  rule: string,
  { tcp, udp }: Readonly<Record<Protocol, number>>,
): FlowRecord[] {
  const record = (protocol: Protocol) => (_: unknown, index: number) =>
    aFlowRecord(index, {
      ...{ backendId, rule },
      tuple: {
        ...{ protocol, source: ipAddress('192.0.2.7'), sourcePort: 1 + index },
        ...{ destination: ipAddress('127.0.0.1'), destinationPort: 8000 },
      },
    });
  return [...Array.from({ length: tcp }, record('tcp')), ...Array.from({ length: udp }, record('udp'))];
}

function describeView({ backends, table, failOpenTable }: ForwardingState['views'][number]): string {
  const slots = new Array<number>(backends.length).fill(0);
  const inUse = table.length > 0 ? table : (failOpenTable ?? table);
  for (const index of inUse) slots[index]!++;
  return backends
    .map((member, index) => {
      const share = Math.round((100 * slots[index]!) / (inUse.length || 1));
      return `${member.backend.name} ${member.serving ? `${share} %` : whyNot(member)}`;
    })
    .join(', ');
}

function whyNot({ exclusion, valid, invalidBecause, endSpreadMs }: BackendState): string {
  const ends = endSpreadMs === undefined ? '' : ` (flows end within ${endSpreadMs} ms)`;
  return `${exclusion ?? ''}${valid || exclusion === invalidBecause ? '' : `, ${invalidBecause ?? ''}`}${ends}`;
}

/** Of nva-1 to nva-9, whatever a configuration calls them. */
function addressOf(name: string): string {
  return name.replace('nva-', '127.0.0.1');
}

function durationOf(text: string): number {
  return parseDuration(text) ?? unknown(text);
}

function unknown(word: string): never {
  throw new Error(`A scenario cannot say "${word}"`);
}
