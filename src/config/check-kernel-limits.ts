import { KERNEL } from './check-kernel.js';
import type { Draft } from './draft.js';
import { error, note, type Issue, type Path } from './finding.js';

/**
 * Kernel marks name backends by 16 bits, and 0 stands for none: MOST_BACKENDS of dataplane/kernel/backend-marks.ts, which
 * cannot be imported here.
 */
const MOST_BACKENDS = 65_535;

/** What only a process can do that has each flow in its hands. Where nobody asked for it, nothing is said. */
export function kernelLimitIssues(draft: Draft): readonly Issue[] {
  if (draft.plane.kind === 'userspace') return [];
  return [
    ...proxyIssues(draft),
    ...poolIssues(draft),
    ...backendCount(draft),
    ...capIssues(draft),
    ...idleNotes(draft),
    ...stopNote(draft),
  ];
}

/** An error: without it, users would get something else than they were promised. */
export function cannot(path: Path, message: string, expected: string, reason?: string): Issue {
  return error('LB_KERNEL_CANNOT', path, message, {
    expected: `${expected}, or kind "userspace"`,
    ...(reason === undefined ? {} : { reason }),
  });
}

/** A note: nothing is lost but the option's own effect. */
export function noEffect(path: Path, reason: string): Issue {
  const key = String(path.at(-1));
  const message = `"${key}" has no effect on the kernel data plane`;
  return note('LB_KERNEL_NO_EFFECT', path, message, { atKey: true, reason });
}

const NO_CONNECTION = 'Packets are passed on as they come, and no connection to a backend is opened';

function proxyIssues({ frontends }: Draft): Issue[] {
  return frontends.flatMap(({ path, value: { name, proxyProtocol } }) =>
    proxyProtocol === undefined
      ? []
      : [
          cannot(
            [...path, 'proxyProtocol'],
            `Frontend "${name}" expects PROXY headers, which the kernel data plane cannot read`,
            'no "proxyProtocol"',
            'It balances packets and never looks into streams',
          ),
        ],
  );
}

function poolIssues({ pools, given }: Draft): Issue[] {
  return pools.flatMap(({ path, value: pool }) => {
    const issues: Issue[] = [];
    if (pool.proxyProtocol !== 'none') {
      issues.push(
        cannot(
          [...path, 'proxyProtocol'],
          `Pool "${pool.name}" is to get PROXY headers, which the kernel data plane cannot write`,
          '"none"',
          'Backends see the client\'s address without them, unless returnPath is "masquerade"',
        ),
      );
    }
    if (pool.sourceAddresses.length > 0) {
      issues.push(
        cannot(
          [...path, 'sourceAddresses'],
          `Pool "${pool.name}" is to be reached from addresses of its own`,
          'no "sourceAddresses"',
          'The client stays the source, or with "masquerade" the address of the route to the backend',
        ),
      );
    }
    const capped: Path[] = [
      [...path, 'maxConnections'],
      ...pool.backends.map((_, index): Path => [...path, 'backends', index, 'maxConnections']),
    ];
    issues.push(
      ...capped
        .filter((at) => given(at))
        .map((at) =>
          cannot(
            at,
            'The kernel data plane cannot cap the connections of a backend',
            'no "maxConnections"',
            'A flow is placed by its hash alone, whoever has how many',
          ),
        ),
      ...(['sourcePorts', 'connectTimeout', 'connectAttempts'] as const)
        .filter((key) => given([...path, key]))
        .map((key) => noEffect([...path, key], NO_CONNECTION)),
      ...pool.backends
        .map((_, index): Path => [...path, 'backends', index, 'floatingAddresses'])
        .filter((at) => given(at))
        .map((at) => noEffect(at, "With floating IP the backend has the frontend's address itself")),
    );
    return issues;
  });
}

function backendCount({ pools }: Draft): Issue[] {
  const count = pools.reduce((sum, { value }) => sum + value.backends.length, 0);
  if (count <= MOST_BACKENDS) return [];
  const expected = `at most ${MOST_BACKENDS} in all pools together`;
  return [
    error('LB_VALUE', ['backendPools'], `Expected ${expected}, found ${count} backends`, {
      found: String(count),
      expected,
      reason: 'A backend is told by 16 bits of a packet mark',
    }),
  ];
}

function capIssues({ given }: Draft): Issue[] {
  const refused = (['tcpFlowsPerSource', 'udpFlowsPerSource'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) =>
      cannot(
        path,
        'The kernel data plane cannot cap the flows of one client',
        `no "${String(path[1])}"`,
        'It does not count flows by client',
      ),
    );
  const useless = (['embryonicFlows', 'embryonicTimeout'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) => noEffect(path, NO_CONNECTION));
  const listed = (['tcpFlows', 'udpFlows'] as const)
    .map((key): Path => ['limits', key])
    .filter((path) => given(path))
    .map((path) =>
      note(
        'LB_KERNEL_LIMIT',
        path,
        `"${String(path[1])}" bounds the flows that are listed, not those that pass`,
        {
          atKey: true,
          reason: 'The kernel has limits of its own, net.netfilter.nf_conntrack_max above all',
        },
      ),
    );
  return [...refused, ...useless, ...listed];
}

function idleNotes({ given }: Draft): Issue[] {
  return [
    ...(given(['dataPlane', 'workers'])
      ? [noEffect(['dataPlane', 'workers'], 'It has no data processes: the kernel moves the packets')]
      : []),
    ...(given(['tableSize'])
      ? [noEffect(['tableSize'], 'Its tables have dataPlane.kernel.tableSize slots')]
      : []),
  ];
}

function stopNote({ given, plane }: Draft): Issue[] {
  const keeps = plane.kind === 'kernel' && plane.options?.onStop === 'keep';
  if (!keeps || !given(['shutdown', 'deadline'])) return [];
  const reason = `With ${KERNEL.join('.')}.onStop "keep" no flow ends with this process, so none is waited for`;
  return [noEffect(['shutdown', 'deadline'], reason)];
}
