import assert from 'node:assert/strict';
import { BalancerError, errorMessage } from '../../../../src/model/errors.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import type { ForwardingState } from '../../../../src/model/forwarding.js';
import { WorkerGroup } from '../../../../src/planes/workers/group.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aState } from '../../selection/fixtures.js';
import { turn } from './channel-pair.js';
import { FakeWorker } from './fake-worker.js';
import { countersOf } from './scripted-plane.js';

export const LISTEN_FAILED = new BalancerError('Cannot listen on any of 2 ports', {
  code: 'LB_LISTEN_FAILED',
  source: 'system',
});

export function stateOf(revision: number, digest?: string): ForwardingState {
  return { ...aState({ configuration: digest === undefined ? {} : { digest } }), revision };
}

/** One worker or several, on a fake clock. Processes are numbered in the order of their launch. */
export class WorkerLab {
  readonly clock = new FakeClock();
  readonly launched: FakeWorker[] = [];
  readonly events: PlaneEvent[] = [];
  /** Applied to the processes that are launched from now on. */
  prepare: (worker: FakeWorker, index: number) => void = () => undefined;
  readonly plane: WorkerGroup;

  constructor(workers = 1) {
    const { clock } = this;
    const launch = (): FakeWorker => {
      const worker = new FakeWorker(clock);
      this.prepare(worker, this.launched.length);
      this.launched.push(worker);
      return worker;
    };
    const ownerOf = (_address: unknown, port: number): number => port % workers;
    this.plane = new WorkerGroup(
      {
        ...{ clock, launch, ownerOf, tryTcpPort: () => Promise.resolve(undefined) },
        ...(workers === 1 && { tcpOwnerOf: ownerOf }),
      },
      { workers, flowEvents: false },
    );
    this.plane.subscribe((events) => this.events.push(...events));
  }

  static async started(workers = 1): Promise<WorkerLab> {
    const lab = new WorkerLab(workers);
    await lab.plane.start(stateOf(1));
    return lab;
  }

  worker(index: number): FakeWorker {
    return this.launched[index] ?? assert.fail(`Only ${this.launched.length} workers were launched`);
  }

  /** Kills a process, as the kernel would. */
  async kill(index: number): Promise<void> {
    this.worker(index).die('signal SIGKILL');
    await turn();
  }

  async arrivals(): Promise<number> {
    const { arrivals } = await this.plane.counters();
    return arrivals.reduce((sum, one) => sum + one.arrivals, 0);
  }
}

/**
 * Tells how workers fare. Each line is a step, or several at a time (`a & b`), and what comes of it before the next:
 *
 *     apply 2 -> #0 apply 2; applied 2
 *
 * Steps: `start`, `apply` and `stop` of the plane, with a revision (`other`: of another configuration) or a deadline; `count`;
 * `wait` milliseconds; to a process, by number, or to the `next` ones: `freeze`, `thaw`, `refuse` a call, `kill`, `hang up`,
 * `exit`, `linger`; `flows` and `seen` (arrivals): what it has; `no memory` for another process; `idle`: no
 * timer is left.
 * Outcomes: calls that reach a process (`#0 apply 2`), in order; `#0 killed`; what the plane answers; events.
 */
export async function tell(lab: WorkerLab, lines: readonly string[]): Promise<void> {
  const reader = new StoryReader(lab);
  for (const line of lines) {
    const [steps = '', expected = ''] = line.split('->').map((part) => part.trim());
    for (const step of steps.split(' & ')) reader.take(step.split(' '));
    await reader.waited();
    const outcomes = expected.split('; ').filter((one) => one !== '');
    assert.deepEqual(reader.outcomes(), inOrder(outcomes), line.trim());
  }
}

/** Calls stay as they come in each process; all else may come in any order. */
function inOrder(outcomes: readonly string[]): readonly string[] {
  const isCall = (outcome: string): boolean => /^#\d+ (?!killed)/.test(outcome);
  return [...outcomes.filter(isCall), ...outcomes.filter((one) => !isCall(one)).sort()];
}

class StoryReader {
  readonly #lab: WorkerLab;
  #seenCalls: number[] = [];
  readonly #killed = new Set<number>();
  #seenEvents: number;
  #answers: string[] = [];
  #waitMs = 0;

  constructor(lab: WorkerLab) {
    this.#lab = lab;
    this.#seenCalls = lab.launched.map(({ plane }) => plane.calls.length);
    this.#seenEvents = lab.events.length;
  }

  take([word = '', ...args]: readonly string[]): void {
    const lab = this.#lab;
    const { plane, clock } = lab;
    const [first = '', ...rest] = args;
    const worker = (): FakeWorker => lab.worker(Number(first));
    const each = (change: (worker: FakeWorker) => void): void => {
      if (first === 'next') lab.prepare = change;
      else change(worker());
    };
    const steps: Readonly<Record<string, () => void>> = {
      start: () => this.#ask(plane.start(stateOf(Number(first))), ({ revision }) => `started ${revision}`),
      apply: () =>
        this.#ask(plane.apply(stateOf(Number(first), rest[0])), ({ revision }) => `applied ${revision}`),
      stop: () =>
        this.#ask(plane.stop(Number(first)), ({ finished, reset }) => `stopped ${finished}+${reset}`),
      count: () => this.#ask(lab.arrivals(), (arrivals) => `counted ${arrivals}`),
      wait: () => (this.#waitMs = Number(first)),
      freeze: () => each((one) => (one.plane.frozen = true)),
      thaw: () => each((one) => one.plane.thaw()),
      refuse: () => each((one) => (one.plane[`${rest[0] as 'start'}Failure`] = LISTEN_FAILED)),
      kill: () => worker().die('signal SIGKILL'),
      hang: () => lab.worker(Number(rest[0])).hangUp(),
      exit: () => worker().exit(rest.join(' ')),
      linger: () => (worker().lingers = true),
      flows: () => (worker().plane.live = Number(rest[0])),
      seen: () => (worker().plane.present = countersOf(Number(rest[0]), Number(rest[1] ?? 0))),
      no: () =>
        (lab.prepare = () => {
          throw new Error('spawn ENOMEM');
        }),
      idle: () => assert.equal(clock.pendingTimers, 0),
    };
    (steps[word] ?? assert.fail(`No step "${word}"`))();
  }

  async waited(): Promise<void> {
    const waitMs = this.#waitMs;
    this.#waitMs = 0;
    if (waitMs > 0) await this.#lab.clock.advanceAsync(waitMs, Math.min(waitMs, 1000));
    for (let turns = 0; turns < 3; turns++) await turn();
  }

  /** Since they were last asked for. */
  outcomes(): readonly string[] {
    const { launched, events } = this.#lab;
    const calls = launched.flatMap(({ plane }, index) =>
      plane.calls.slice(this.#seenCalls[index] ?? 0).map((call) => `#${index} ${call}`),
    );
    this.#seenCalls = launched.map(({ plane }) => plane.calls.length);
    const killed = [...launched.entries()].filter(
      ([index, { kills }]) => kills > 0 && !this.#killed.has(index),
    );
    for (const [index] of killed) this.#killed.add(index);
    const answers = this.#answers.splice(0);
    const told = events
      .slice(this.#seenEvents)
      .map((event) =>
        event.type === 'worker-lost'
          ? `lost ${event.worker}: ${event.evidence}, ${event.flowsLost} flows`
          : event.type,
      );
    this.#seenEvents = events.length;
    const kept = calls.filter((call) => !call.endsWith(' counters'));
    return inOrder([...kept, ...killed.map(([index]) => `#${index} killed`), ...answers, ...told]);
  }

  #ask<T>(call: Promise<T>, say: (answer: T) => string): void {
    call.then(
      (answer) => this.#answers.push(say(answer)),
      (error: unknown) => {
        const code = error instanceof BalancerError ? error.code : 'an error';
        this.#answers.push(code === 'LB_INTERNAL' ? `refused: ${errorMessage(error)}` : `refused ${code}`);
      },
    );
  }
}
