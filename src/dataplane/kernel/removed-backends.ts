import { parseIpAddress } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import { backendMarks } from './backend-marks.js';
import type { RemovedBackend } from './kernel-input.js';

/** Backends that are configured no more, and may have flows. */
export class RemovedBackends {
  readonly #backends = new Map<string, RemovedBackend>();

  get list(): readonly RemovedBackend[] {
    return [...this.#backends.values()];
  }

  /** One configuration takes the place of another. */
  replace(before: Configuration, after: Configuration): void {
    for (const backend of backendsOf(before)) this.#backends.set(backend.id, backend);
    for (const { id } of backendsOf(after)) this.#backends.delete(id);
  }

  /**
   * Flows that are there when a process starts: by mark, the address that answers. Marks follow from pools and addresses,
   * so they tell of which pool a backend was.
   */
  adopt(configuration: Configuration, marks: ReadonlyMap<number, string>): void {
    const { instance, backendPools } = configuration;
    const present = new Set(backendsOf(configuration).map(({ id }) => id));
    for (const [mark, text] of marks) {
      const address = parseIpAddress(text);
      if (address === undefined) continue;
      for (const { name: pool } of backendPools) {
        const id = `${pool}/${address.text}`;
        if (present.has(id) || backendMarks(instance, [id]).get(id) !== mark) continue;
        this.#backends.set(id, { id, pool, address });
      }
    }
  }

  /** Whether it was there. */
  forget(id: string): boolean {
    return this.#backends.delete(id);
  }
}

function backendsOf({ backendPools }: Configuration): readonly RemovedBackend[] {
  return backendPools.flatMap(({ name: pool, backends }) =>
    backends.map(({ id, address }) => ({ id, pool, address })),
  );
}
