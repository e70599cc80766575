import assert from 'node:assert/strict';
import { ruleSlots } from '../../../../src/flows/flow.js';
import { ipAddress, isWildcard } from '../../../../src/model/address.js';
import type { Configuration } from '../../../../src/model/configuration.js';
import { errorMessage } from '../../../../src/model/errors.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { formatPortSet, parsePortSet, portSetOf } from '../../../../src/model/ports.js';
import type { ListenFailure } from '../../../../src/model/events.js';
import type { PortGate } from '../../../../src/planes/contract.js';
import { HandoverState } from '../../../../src/planes/userspace/handover-state.js';
import type { ListenerBinding } from '../../../../src/planes/userspace/listen-plan.js';
import {
  ListenerManager,
  type Listener,
  type ListenerFactory,
  type ListenerManagerOptions,
} from '../../../../src/planes/userspace/listeners.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aConfiguration, aFrontend, aRule } from '../../selection/fixtures.js';

/** The address of the frontend, where nothing else is said. */
const HUB = '198.51.100.1';

class FakeListener implements Listener {
  serves = 0;
  closes = 0;
  destroys = 0;
  readonly binding: ListenerBinding;
  readonly #call: (what: string) => void;

  constructor(binding: ListenerBinding, call: (what: string) => void) {
    this.binding = binding;
    this.#call = call;
  }

  serve(): void {
    this.serves++;
    this.#call('serve');
  }

  close(): void {
    this.closes++;
    this.#call('close');
  }

  destroy(): void {
    this.destroys++;
    this.#call('destroy');
  }

  rawHandle(): undefined {
    return undefined;
  }
}

/** Opens what is not said to fail; while `held`, the answer waits. */
export class FakeFactory implements ListenerFactory {
  readonly opened: FakeListener[] = [];
  /** Of the factory and its listeners, in order. */
  calls: string[] = [];
  readonly failing = new Map<number, Error>();
  /** Addresses share a port, but for a wildcard and another: as the kernel has it. */
  overlaps = false;
  held = false;
  opening = 0;
  mostOpening = 0;
  #release: (() => void)[] = [];

  async open(binding: ListenerBinding): Promise<Listener> {
    const { protocol, address, port } = binding;
    const where = address.text === HUB ? '' : ` at ${address.text}`;
    const call = (what: string): unknown => this.calls.push(`${what} ${protocol} ${port}${where}`);
    call('open');
    this.opening++;
    this.mostOpening = Math.max(this.mostOpening, this.opening);
    if (this.held) await new Promise<void>((resolve) => this.#release.push(resolve));
    else await Promise.resolve();
    this.opening--;
    const failure = this.failing.get(binding.port);
    if (failure !== undefined) throw failure;
    if (this.overlaps && this.opened.some((other) => isInTheWay(other, binding))) {
      throw systemError('EADDRINUSE');
    }
    const listener = new FakeListener(binding, call);
    this.opened.push(listener);
    return listener;
  }

  release(): void {
    this.held = false;
    for (const resolve of this.#release.splice(0)) resolve();
  }

  get ports(): readonly number[] {
    return this.opened.map(({ binding }) => binding.port);
  }

  on(port: number): FakeListener {
    const found = this.opened.findLast(({ binding }) => binding.port === port);
    assert.ok(found !== undefined, `Port ${port} was never opened`);
    return found;
  }
}

function isInTheWay(
  { binding, closes, destroys }: FakeListener,
  { address, port }: ListenerBinding,
): boolean {
  if (closes + destroys > 0 || binding.port !== port) return false;
  return isWildcard(binding.address) || isWildcard(address);
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`bind ${code}`), { code });
}

/** Each is another configuration. */
let configurations = 0;

export function wanting(overrides: Partial<Configuration>): Configuration {
  return aConfiguration({ ...overrides, digest: `${++configurations}` });
}

export function tcpOn(...ports: readonly number[]): Configuration {
  return wanting({ rules: [aRule({ protocols: ['tcp'], ports: portSetOf(...ports) })] });
}

export function texts(failures: readonly ListenFailure[]): readonly string[] {
  return failures.map(({ protocol, port, errorCode }) => `${protocol} ${port} ${errorCode}`);
}

export const OPEN_GATE: PortGate = { claim: () => Promise.resolve(undefined), release: () => undefined };

export class Lab {
  readonly tcp = new FakeFactory();
  readonly udp = new FakeFactory();
  readonly clock = new FakeClock();
  readonly events: PlaneEvent[] = [];
  readonly manager: ListenerManager;

  constructor(options: Partial<ListenerManagerOptions> = {}, tcpGate?: PortGate) {
    this.manager = new ListenerManager(
      {
        clock: this.clock,
        events: { push: (event) => this.events.push(event) },
        factories: { tcp: this.tcp, udp: this.udp },
        handover: new HandoverState(),
        ownAddresses: () => [],
        slotsFor: ruleSlots,
        learnRoutes: () => Promise.resolve(),
        inTurn: (work) => work(),
        tcpGate,
      },
      { share: { worker: 0, ownerOf: () => 0 }, workers: 1, ...options },
    );
  }

  async start(configuration: Configuration): Promise<readonly ListenFailure[]> {
    await this.manager.start(configuration);
    return this.failures;
  }

  /** Stages and commits. */
  async change(configuration: Configuration): Promise<readonly ListenFailure[]> {
    await this.manager.stage(configuration);
    await this.manager.commit(() => undefined);
    return this.failures;
  }

  get failures(): readonly ListenFailure[] {
    return this.manager.report(0).failures;
  }

  /** Sockets open over TCP, and over UDP. */
  get counts(): readonly [number, number] {
    const { tcp, udp } = this.manager.report(0).listeners;
    return [tcp, udp];
  }
}

/**
 * Tells what a ListenerManager does. Each line is a step, or several at a time (`a & b`), and what comes of it:
 *
 *     start tcp 80-82 -> open tcp 80-82; serve tcp 80-82; hub 3/3
 *
 * Steps: `start`, `stage` or `change` (stage and commit) a configuration that listens on these ports over `tcp`, `udp` or
 * `both`, perhaps `at` another address; `commit`, `discard`, `close`, `destroy`; `fail` a port over a protocol with an
 * error, `heal` all; `wait` milliseconds; `idle`: no timer is left; from the `overlaps` on, a wildcard address is in the
 * way of others.
 * Outcomes: what is done to sockets, by port; `adopted`; what is `missing` from then on, or `nothing missing`; open and
 * wanted sockets of the frontend; events; `refused` and why.
 */
export async function tellListeners(lab: Lab, lines: readonly string[]): Promise<void> {
  let [census, missing] = ['', 'nothing missing'];
  for (const line of lines) {
    const [steps = '', expected = ''] = line.split('->').map((part) => part.trim());
    const outcomes: string[] = [];
    for (const step of steps.split(' & ')) {
      await take(lab, step, outcomes).catch((error: unknown) =>
        outcomes.push(`refused: ${errorMessage(error)}`),
      );
    }
    const calls = [lab.tcp, lab.udp].flatMap(({ calls }) => calls.splice(0));
    const events = lab.events.splice(0).map(({ type }) => type);
    const hub = Object.entries(lab.manager.census()).map(
      ([name, { open, wanted }]) => `${name} ${open}/${wanted}`,
    );
    const failures =
      texts(lab.failures)
        .map((failure) => `missing ${failure}`)
        .join('; ') || 'nothing missing';
    const changed = [
      hub.join() === census ? [] : hub,
      failures === missing ? [] : failures.split('; '),
    ].flat();
    [census, missing] = [hub.join(), failures];
    const found = [...byPort(calls), ...outcomes, ...events, ...changed];
    assert.deepEqual(
      found.sort(),
      expected
        .split('; ')
        .filter((one) => one !== '')
        .sort(),
      line.trim(),
    );
  }
}

async function take(lab: Lab, step: string, outcomes: string[]): Promise<void> {
  const { manager, clock, tcp, udp } = lab;
  const [word = '', ...rest] = step.split(' ');
  const steps: Record<string, () => unknown> = {
    start: () => manager.start(configurationOf(rest)),
    stage: () => manager.stage(configurationOf(rest)),
    change: () =>
      manager.stage(configurationOf(rest)).then(() => manager.commit(() => outcomes.push('adopted'))),
    commit: () => manager.commit(() => outcomes.push('adopted')),
    discard: () => manager.discard(),
    close: () => manager.close(),
    destroy: () => manager.destroy(),
    fail: () => (rest[0] === 'tcp' ? tcp : udp).failing.set(Number(rest[1]), systemError(rest[2] ?? '')),
    heal: () => [tcp, udp].forEach(({ failing }) => failing.clear()),
    wait: () => clock.advanceAsync(Number(rest[0])),
    idle: () => assert.equal(clock.pendingTimers, 0),
    overlaps: () => (tcp.overlaps = true),
  };
  await (steps[word] ?? assert.fail(`No step "${word}"`))();
}

/** The same words are the same configuration. */
function configurationOf(words: readonly string[]): Configuration {
  const [protocol = 'tcp', ports = '', , address = HUB] = words;
  return aConfiguration({
    digest: words.join(' '),
    frontends: [aFrontend({ address: ipAddress(address) })],
    rules: [
      aRule({
        protocols: protocol === 'both' ? ['tcp', 'udp'] : [protocol === 'udp' ? 'udp' : 'tcp'],
        ports: parsePortSet(ports) ?? [],
      }),
    ],
  });
}

/** `open tcp 80`, `open tcp 81`: `open tcp 80-81`. */
function byPort(calls: readonly string[]): readonly string[] {
  const ports = new Map<string, number[]>();
  for (const call of calls) {
    const [what, protocol, port, ...where] = call.split(' ');
    const key = [what, protocol, 'PORTS', ...where].join(' ');
    ports.set(key, [...(ports.get(key) ?? []), Number(port)]);
  }
  return [...ports].map(([key, all]) => key.replace('PORTS', formatPortSet(portSetOf(...all))));
}
