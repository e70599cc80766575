import type { OnKernelChange, SetupKeeper } from '../../../../src/planes/capture/plane.js';
import type { KernelSetup } from '../../../../src/planes/netfilter/setup.js';

/** A kernel in memory. What it is told goes into a log that the inner plane of a test writes into too. */
export class FakeKeeper implements SetupKeeper {
  readonly #log: string[];
  present: KernelSetup | undefined;
  state: 'in-place' | 'failing' | 'absent' = 'absent';
  /** Rejects the next of that kind. */
  failing: 'check' | 'install' | undefined;
  onChange: OnKernelChange = () => undefined;

  constructor(log: string[]) {
    this.#log = log;
  }

  check(setup: KernelSetup): Promise<void> {
    this.#log.push(`check ${summary(setup)}`);
    return this.#outcome('check');
  }

  async install(setup: KernelSetup): Promise<void> {
    this.#log.push(`install ${summary(setup)}`);
    await this.#outcome('install');
    this.present = setup;
    this.state = 'in-place';
    this.onChange('installed');
  }

  remove(): Promise<void> {
    this.#log.push('remove');
    this.present = undefined;
    this.state = 'absent';
    return Promise.resolve();
  }

  letGo(): Promise<void> {
    this.#log.push('let go');
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

  #outcome(kind: 'check' | 'install'): Promise<void> {
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
