import type { HealthChange, HealthSource } from '../../../src/health/tracker.js';
import type { ApplyReport, DataPlane, StopReport, UdpStop } from '../../../src/planes/contract.js';
import type { Backend, Configuration, HealthState } from '../../../src/model/configuration.js';
import type { PlaneEvent } from '../../../src/model/events.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';

/** One call of start or apply that the test answers. */
export interface PlaneCall {
  readonly method: 'start' | 'apply';
  readonly state: ForwardingState;
  accept(report?: Partial<ApplyReport>): void;
  refuse(error: Error): void;
}

/** A plane whose every start and apply waits for the test. */
export class FakePlane implements DataPlane {
  /** Calls so far; those answered stay. */
  readonly calls: PlaneCall[] = [];
  readonly stops: { readonly deadlineMs: number; readonly udp: UdpStop | undefined }[] = [];
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #finishStop: ((report: StopReport) => void)[] = [];

  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#call('start', state);
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#call('apply', state);
  }

  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.stops.push({ deadlineMs, udp });
    return new Promise((resolve) => this.#finishStop.push(resolve));
  }

  stopped(report: StopReport): void {
    for (const resolve of this.#finishStop.splice(0)) resolve(report);
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(...events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }

  flows(): Promise<never> {
    return Promise.reject(new Error('Not part of this test'));
  }

  counters(): Promise<never> {
    return Promise.reject(new Error('Not part of this test'));
  }

  flowCount(): number {
    return 0;
  }

  answer(): Promise<void> {
    return Promise.resolve();
  }

  #call(method: PlaneCall['method'], state: ForwardingState): Promise<ApplyReport> {
    return new Promise((resolve, reject) => {
      this.calls.push({
        method,
        state,
        accept: (report = {}) =>
          resolve({ revision: state.revision, listeners: { tcp: 1, udp: 1 }, failures: [], ...report }),
        refuse: reject,
      });
    });
  }
}

/** Health as the test says it is: `unknown` until told. */
export class FakeHealth implements HealthSource {
  readonly hastened: string[] = [];
  started = 0;
  stopped = 0;
  speak: () => void = () => undefined;
  readonly #states = new Map<string, HealthState>();
  readonly #spoken = new Promise<void>((resolve) => (this.speak = resolve));
  #listener: (change: HealthChange) => void = () => undefined;

  /** Digests of the configurations of each call. */
  readonly watched: string[][] = [];

  watch(configurations: readonly Configuration[]): void {
    this.started++;
    this.watched.push(configurations.map(({ digest }) => digest));
  }

  healthOf({ id }: Backend): { readonly state: HealthState } {
    return { state: this.#states.get(id) ?? 'unknown' };
  }

  onChange(listener: (change: HealthChange) => void): void {
    this.#listener = listener;
  }

  firstVerdicts(): Promise<void> {
    return this.#spoken;
  }

  hasten(backendId: string): void {
    this.hastened.push(backendId);
  }

  stop(): void {
    this.stopped++;
  }

  /** A probe result that changed the state. */
  set(backend: Backend, to: HealthState): void {
    const from = this.#states.get(backend.id) ?? 'unknown';
    this.#states.set(backend.id, to);
    const transition = { atMs: 1, from, to, evidence: `now ${to}` };
    this.#listener({ pool: 'nvas', backend, probe: 'alive', transition });
  }

  /** A probe result that changed only the weight. */
  reweigh(backend: Backend): void {
    this.#listener({ pool: 'nvas', backend, probe: 'alive' });
  }
}
