import { errorCode, errorMessage } from '../../model/errors.js';
import type { Protocol } from '../../model/five-tuple.js';
import type { Clock } from '../../runtime/clock.js';
import type { ListenFailure } from '../data-plane.js';
import type { Listener, ListenerBinding, ListenerFactory } from './listener.js';

/** Sockets bound at a time; enough to be quick, few enough to keep the event loop turning. */
const OPEN_BATCH = 256;

/** How often a socket that was just closed, here or in another worker, is tried again. */
const AGAIN_MS = 20;

export interface Opened {
  readonly listeners: readonly Listener[];
  readonly failures: readonly ListenFailure[];
}

/** Opens sockets in batches, in the order given, until it is told to end. */
export class ListenerOpening {
  readonly #factories: Readonly<Record<Protocol, ListenerFactory>>;
  readonly #clock: Clock;
  #ended = false;

  constructor(factories: Readonly<Record<Protocol, ListenerFactory>>, clock: Clock) {
    this.#factories = factories;
    this.#clock = clock;
  }

  /** For good: what is just being opened is closed again, and is no failure. */
  end(): void {
    this.#ended = true;
  }

  /** `onOpen` is called as soon as one is open. */
  async open(
    bindings: readonly ListenerBinding[],
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    for (const batch of batchesOf(bindings)) {
      if (this.#ended) break;
      const outcomes = await Promise.all(batch.map((binding) => this.#openOne(binding, onOpen)));
      for (const failure of outcomes) if (failure !== undefined) failures.push(failure);
    }
    return failures;
  }

  /** As open; what is in use by somebody is tried again for so long. */
  async openPatiently(
    bindings: readonly ListenerBinding[],
    patienceMs: number,
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const untilMs = this.#clock.monotonicMs() + patienceMs;
    let failures = await this.open(bindings, onOpen);
    while (failures.some(isInUse) && this.#clock.monotonicMs() < untilMs && !this.#ended) {
      await new Promise<void>((resolve) => this.#clock.setTimer(AGAIN_MS, resolve));
      const again = bindings.filter((binding) =>
        failures.some((failure) => isInUse(failure) && isOf(failure, binding)),
      );
      const lasting = failures.filter((failure) => !isInUse(failure));
      failures = [...lasting, ...(await this.open(again, onOpen))];
    }
    return failures;
  }

  async #openOne(
    binding: ListenerBinding,
    onOpen: (listener: Listener) => void,
  ): Promise<ListenFailure | undefined> {
    try {
      const listener = await this.#factories[binding.protocol].open(binding);
      if (this.#ended) listener.destroy();
      else onOpen(listener);
      return undefined;
    } catch (error) {
      return failureOf(binding, errorCode(error) ?? errorMessage(error));
    }
  }
}

export function failureOf({ rule, protocol, address, port }: ListenerBinding, code: string): ListenFailure {
  return { rule: rule.name, protocol, address: address.text, port, errorCode: code };
}

export function isInUse({ errorCode: code }: ListenFailure): boolean {
  return code === 'EADDRINUSE';
}

/** In slices of OPEN_BATCH. */
export function* batchesOf(bindings: readonly ListenerBinding[]): Generator<readonly ListenerBinding[]> {
  for (let start = 0; start < bindings.length; start += OPEN_BATCH) {
    yield bindings.slice(start, start + OPEN_BATCH);
  }
}

function isOf(failure: ListenFailure, { protocol, address, port }: ListenerBinding): boolean {
  return failure.protocol === protocol && failure.port === port && failure.address === address.text;
}
