import type { CapturedPlaneDeps } from '../../../../src/planes/capture/plane.js';
import type { OnKernelChange, Stage } from '../../../../src/planes/netfilter/reconciler.js';
import type { KernelSetup } from '../../../../src/planes/netfilter/setup.js';

type Keeper = ReturnType<CapturedPlaneDeps['createReconciler']>;

/** A kernel in memory. What it is told goes into a log that the inner plane of a test writes into too. */
export class FakeKeeper implements Keeper {
  readonly #log: string[];
  present: KernelSetup | undefined;
  state: 'in-place' | 'failing' | 'absent' = 'absent';
  /** Rejects the next of that kind. */
  failing: 'check' | 'want' | undefined;
  onChange: OnKernelChange = () => undefined;

  constructor(log: string[]) {
    this.#log = log;
  }

  check(setup: KernelSetup): Promise<void> {
    this.#log.push(`check ${summary(setup)}`);
    return this.#outcome('check');
  }

  async want(stages: readonly Stage[]): Promise<void> {
    for (const { setup } of stages) {
      this.#log.push(`want ${summary(setup)}`);
      await this.#outcome('want');
      this.present = setup;
      this.state = 'in-place';
      this.onChange('installed');
    }
  }

  remove(): Promise<void> {
    this.#log.push('remove');
    this.present = undefined;
    this.state = 'absent';
    return Promise.resolve();
  }

  release(): Promise<void> {
    this.#log.push('leave');
    this.state = 'absent';
    return Promise.resolve();
  }

  report() {
    return {
      table: 'inet haports-test',
      state: this.state,
      sinceMs: 0,
      repairs: 0,
      failures: 0,
      tool: 'nft',
    };
  }

  #outcome(kind: 'check' | 'want'): Promise<void> {
    if (this.failing !== kind) return Promise.resolve();
    this.failing = undefined;
    return Promise.reject(new Error(`${kind} failed`));
  }
}

/** `tcp4-four 101, udp4-four 1; 3 routing` */
export function summary({ sets, routing }: KernelSetup): string {
  const parts = Array.from(sets, ([name, elements]) => `${name} ${elements.size}`);
  return `${parts.join(', ')}; ${routing.length} routing`;
}
