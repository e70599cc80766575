import { errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { Terminal } from './terminal.js';
import { decodeKeys, pressKey } from './top-keys.js';
import type { TopData, TopModel } from './top-model.js';
import { renderTop } from './top-view.js';

const PERIOD_MS = 1000;

export interface TopSessionDeps {
  readonly terminal: Terminal;
  readonly clock: Clock;
  /** One look at the running process. */
  readonly ask: (model: TopModel, signal: AbortSignal) => Promise<TopData>;
}

/** A live view: asks every second, draws at every change. Runs once. */
export class TopSession {
  readonly #deps: TopSessionDeps;
  readonly #end = new AbortController();
  #model: TopModel;
  /** A key wants other data; may be pressed while an answer is under way. */
  #isStale = false;
  #wake: () => void = () => undefined;
  #failure: Error | undefined;

  constructor(deps: TopSessionDeps, first: TopModel) {
    this.#deps = deps;
    this.#model = first;
  }

  /** Until `q`, Ctrl-C or the signal. The terminal is given back whatever happens. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#stop();
    signal.addEventListener('abort', stop);
    if (signal.aborted) return;
    const screen = this.#deps.terminal.openScreen();
    const draw = (): void => {
      try {
        screen.draw(renderTop(this.#model, this.#deps.terminal.size()));
      } catch (error) {
        // Thrown into an event handler it would leave the terminal as it is.
        this.#failure ??= error instanceof Error ? error : new Error(String(error));
        this.#stop();
      }
    };
    try {
      screen.onInput((input) => {
        this.#press(input);
        draw();
      });
      screen.onResize(draw);
      draw();
      while (!this.#isOver()) {
        await this.#pause();
        if (this.#isOver()) break;
        if (this.#model.paused && !this.#isStale) continue;
        await this.#ask();
        if (!this.#isOver()) draw();
      }
    } finally {
      signal.removeEventListener('abort', stop);
      screen.close();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #press(input: string): void {
    for (const key of decodeKeys(input)) {
      const { model, effect } = pressKey(this.#model, key);
      this.#model = model;
      if (effect === 'quit') {
        this.#stop();
        return;
      }
      if (effect === 'ask') {
        this.#isStale = true;
        this.#wake();
      }
    }
  }

  async #ask(): Promise<void> {
    this.#isStale = false;
    try {
      const data = await this.#deps.ask(this.#model, this.#end.signal);
      this.#model = { ...this.#model, data, trouble: undefined };
    } catch (error) {
      this.#model = { ...this.#model, trouble: errorMessage(error) };
    }
  }

  #pause(): Promise<void> {
    if (this.#isStale) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#deps.clock.setTimer(PERIOD_MS, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }

  #stop(): void {
    this.#end.abort();
    this.#wake();
  }

  #isOver(): boolean {
    return this.#end.signal.aborted;
  }
}
