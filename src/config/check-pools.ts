import { portSetSize } from '../model/port-set.js';
import { tableSizeOf, type Draft } from './draft.js';
import { error, warning, type Issue, type Path } from './finding.js';
import type { BackendPoolInput } from './schema-pool.js';

/** Slots a backend should have for flows to spread evenly to about 1 % (Maglev, NSDI 2016, section 3.4). */
const SLOTS_PER_BACKEND = 100;

/** Indices of backends are 16 bits wide in a table, and 0xffff stands for none. */
const MAXIMUM_BACKENDS = 65534;

/** What hangs together inside one pool. */
export function poolIssues(draft: Draft): readonly Issue[] {
  return draft.pools.flatMap(({ path, value: pool }) => [
    ...duplicateAddresses(path, pool),
    ...memberCounts(path, pool, tableSizeOf(draft)),
    ...sourceFamilies(path, pool),
    ...(draft.plane.kind === 'kernel' ? [] : portsForWorkers(path, pool, draft.root.dataPlane.workers)),
  ]);
}

/** Each data worker has source ports of its own, an equal part of the pool's. */
function portsForWorkers(path: Path, { name, sourcePorts }: BackendPoolInput, workers: number): Issue[] {
  const count = portSetSize(sourcePorts);
  if (count >= workers) return [];
  const message = `Pool "${name}" has ${count} source ports for ${workers} data workers, so some would have none`;
  return [
    error('LB_CONFLICT', [...path, 'sourcePorts'], message, {
      found: `${count} ports`,
      expected: `at least ${workers} ports`,
    }),
  ];
}

function duplicateAddresses(path: Path, pool: BackendPoolInput): Issue[] {
  const seen = new Set<string>();
  return pool.backends.flatMap(({ address }, index) => {
    if (!seen.has(address.text)) {
      seen.add(address.text);
      return [];
    }
    const message = `Address ${address.text} is already a backend of pool "${pool.name}"`;
    return [
      error('LB_DUPLICATE_ADDRESS', [...path, 'backends', index, 'address'], message, {
        found: `"${address.text}"`,
        expected: 'each address once in a pool',
        reason: 'Pool and address are the identity of a backend',
      }),
    ];
  });
}

function memberCounts(path: Path, pool: BackendPoolInput, tableSize: number): Issue[] {
  const { backends, minimumHealthy } = pool;
  const at = [...path, 'backends'];
  const count = backends.length;
  if (count === 0) {
    return [
      warning('LB_EMPTY_POOL', at, `Pool "${pool.name}" has no backends, so its rules refuse every flow`),
    ];
  }
  if (count > Math.min(tableSize, MAXIMUM_BACKENDS)) {
    const expected = `at most ${Math.min(tableSize, MAXIMUM_BACKENDS)}`;
    return [
      error('LB_VALUE', at, `Expected ${expected} backends, found ${count}`, {
        found: String(count),
        expected,
      }),
    ];
  }
  const issues: Issue[] = [];
  if (count * SLOTS_PER_BACKEND > tableSize) {
    const message = `Table size ${tableSize} is small for ${count} backends, flows will not spread evenly`;
    issues.push(
      warning('LB_SMALL_TABLE', at, message, {
        found: String(tableSize),
        expected: `a tableSize of at least ${count * SLOTS_PER_BACKEND}`,
      }),
    );
  }
  const largestGroup = largestPriorityGroup(pool);
  if (minimumHealthy > largestGroup) {
    const message = `No priority group of pool "${pool.name}" has ${minimumHealthy} members`;
    issues.push(
      warning('LB_NEVER_ENOUGH', [...path, 'minimumHealthy'], message, {
        found: String(minimumHealthy),
        expected: `at most ${largestGroup}`,
      }),
    );
  }
  if (backends.every(({ weight }) => weight === 0)) {
    const message = `Every backend of pool "${pool.name}" has weight 0, so none gets new flows`;
    issues.push(warning('LB_NO_WEIGHT', at, message));
  }
  return issues;
}

function largestPriorityGroup({ backends }: BackendPoolInput): number {
  const sizes = new Map<number, number>();
  for (const { priority } of backends) sizes.set(priority, (sizes.get(priority) ?? 0) + 1);
  return Math.max(...sizes.values());
}

function sourceFamilies(path: Path, pool: BackendPoolInput): Issue[] {
  const families = new Set(pool.sourceAddresses.map((address) => address.family));
  if (families.size === 0) return [];
  return pool.backends.flatMap(({ address }, index) =>
    families.has(address.family)
      ? []
      : [
          error(
            'LB_CONFLICT',
            [...path, 'backends', index, 'address'],
            `No source address of pool "${pool.name}" is IPv${address.family} as ${address.text} is`,
            { found: `"${address.text}"`, expected: 'sourceAddresses of each family the backends have' },
          ),
        ],
  );
}
