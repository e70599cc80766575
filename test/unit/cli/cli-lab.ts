import { after, before, beforeEach } from 'node:test';
import { NOW_MS } from '../../support/api-answers.js';
import { FakeAdmin, type Answer, type SeenRequest } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';

/** Commands that ask a fake admin API, whose socket config.json names. The clock stands; its timers are `haste` times as fast. */
export class CliLab {
  readonly admin = new FakeAdmin();
  deps = new FakeDeps();
  readonly #haste: number;

  constructor(haste: number) {
    this.#haste = haste;
  }

  /** A new terminal, file system and environment; nothing has been asked, and there are no answers. */
  reset(): FakeDeps {
    this.admin.answers.clear();
    this.admin.seen.length = 0;
    const deps = new FakeDeps();
    const { clock } = deps;
    deps.files.set('config.json', { admin: { socket: this.admin.socket } });
    deps.clock = {
      monotonicMs: () => clock.monotonicMs(),
      wallMs: () => NOW_MS,
      setTimer: (delayMs, callback, options) => clock.setTimer(delayMs / this.#haste, callback, options),
    };
    return (this.deps = deps);
  }

  /** What is answered to `GET /v1/status` and the like: JSON, what `problem` gives, or the JSON of each answer in turn. */
  answer(question: string, json: unknown, ...later: readonly unknown[]): void {
    const isProblem = typeof json === 'object' && json !== null && 'status' in json && 'json' in json;
    const answers = [isProblem ? (json as Answer) : { json }, ...later.map((one) => ({ json: one }))];
    this.admin.answers.set(question, () => (answers.length > 1 ? answers.shift() : undefined) ?? answers[0]!);
  }

  /** The requests to a path, oldest first. */
  asked(path: string): readonly SeenRequest[] {
    return this.admin.seen.filter((seen) => seen.path === path);
  }
}

/** A lab that starts and stops with the tests of a file or suite, and is reset before each. */
export function cliLab({ haste = 10 }: { readonly haste?: number } = {}): CliLab {
  const lab = new CliLab(haste);
  before(async () => {
    await lab.admin.start();
  });
  after(() => lab.admin.stop());
  beforeEach(() => {
    lab.reset();
  });
  return lab;
}
