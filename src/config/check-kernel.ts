import { compareAddresses, type IpAddress } from '../model/address.js';
import { cidrsOverlap, type Cidr } from '../model/cidr.js';
import type { BoundRule } from './bind-rules.js';
import type { Draft } from './draft.js';
import { error, note, warning, type Issue, type Path } from './finding.js';
import type { KernelInput } from './schema-kernel.js';

export const KERNEL: Path = ['dataPlane', 'kernel'];

/** Whether packets reach backends with the frontend's address on them. */
export function isFloating({ mode }: KernelInput): boolean {
  return mode === 'floating-l2' || mode === 'floating-routed';
}

/** Options of the kernel data plane that do not go with its mode, with one another, or with this machine. */
export function kernelIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const { plane } = draft;
  if (plane.kind === 'userspace') return strayOptions(draft);
  const { options } = plane;
  if (options === undefined) return captureConflict(draft);
  return [
    ...captureConflict(draft),
    ...interfaceIssues(options),
    ...returnIssues(draft, options),
    ...stateIssues(options),
    ...spokeIssues(draft, options, rules),
    ...ownFrontends(draft, options, ownAddresses),
  ];
}

function strayOptions({ given }: Draft): Issue[] {
  if (!given(KERNEL)) return [];
  const message = '"kernel" has no effect on the userspace data plane';
  return [
    warning('LB_NO_EFFECT', KERNEL, message, { atKey: true, expected: 'kind "kernel", or no "kernel"' }),
  ];
}

function captureConflict({ given }: Draft): Issue[] {
  const path = ['dataPlane', 'capture'];
  if (!given(path)) return [];
  return [
    error('LB_CONFLICT', path, 'The kernel data plane has no sockets that ports could be steered to', {
      atKey: true,
      expected: 'kind "userspace", or no "capture"',
      reason: 'It takes every port of a frontend as it is',
    }),
  ];
}

function interfaceIssues({ mode, interface: name }: KernelInput): Issue[] {
  if (mode !== 'floating-l2' || name !== undefined) return [];
  return [
    error(
      'LB_MISSING_KEY',
      [...KERNEL, 'interface'],
      'Missing key "interface", needed with mode floating-l2',
      {
        expected: 'the name of the interface where flows arrive',
        reason: 'Packets are turned round where they come in, before anything else sees them',
      },
    ),
  ];
}

function returnIssues({ given }: Draft, { mode, returnPath }: KernelInput): Issue[] {
  const path = [...KERNEL, 'returnPath'];
  if (mode !== 'nat') {
    if (returnPath === 'route') return [];
    return [
      error('LB_KERNEL_MODE', path, `With mode ${mode} no address is changed, so none can be hidden`, {
        found: '"masquerade"',
        expected: '"route", or mode "nat"',
      }),
    ];
  }
  const at = given(path) ? path : ['dataPlane', 'kind'];
  if (returnPath === 'masquerade') {
    return [
      note('LB_KERNEL_MASQUERADE', at, "Backends see this machine's address instead of the client's", {
        reason:
          'Each backend port then takes at most about 64,000 flows, one for each source port of this machine',
      }),
    ];
  }
  return [
    note('LB_KERNEL_RETURN', at, 'Backends must route their answers back through this machine', {
      expected: 'this machine as their gateway to the clients, or returnPath "masquerade"',
      reason:
        'Only here the frontend\'s address is put back on answers; "haports doctor" checks the way back',
    }),
  ];
}

function stateIssues({ mode, flowState }: KernelInput): Issue[] {
  if (mode !== 'nat' || flowState === 'pinned') return [];
  return [
    error('LB_KERNEL_MODE', [...KERNEL, 'flowState'], 'With mode nat every flow has an entry in conntrack', {
      found: '"stateless"',
      expected: '"pinned", or another mode',
      reason: 'Answers could not be told from other traffic without one',
    }),
  ];
}

function spokeIssues(draft: Draft, options: KernelInput, rules: readonly BoundRule[]): Issue[] {
  const { mode, flowState, spokes } = options;
  const path = [...KERNEL, 'spokes'];
  if (mode !== 'next-hop') {
    if (!draft.given(path)) return [];
    return [note('LB_KERNEL_NO_EFFECT', path, `"spokes" has no effect with mode ${mode}`, { atKey: true })];
  }
  const issues = overlappingSpokes(path, spokes);
  if (spokes.length === 0 && flowState === 'pinned') return issues;
  for (const family of new Set(rules.map(({ frontend }) => frontend.value.address.family))) {
    const count = spokes.filter(({ address }) => address.family === family).length;
    if (count >= 2) continue;
    issues.push(
      error('LB_KERNEL_SPOKES', path, `Traffic runs between spokes, and ${count} of them is IPv${family}`, {
        found: `${count}`,
        expected: `at least two IPv${family} blocks${flowState === 'pinned' ? ', or no spokes at all' : ''}`,
        reason:
          flowState === 'pinned'
            ? 'With spokes, only what goes from one to another is balanced'
            : 'Without flow state the order of the spokes tells which direction is hashed the other way round',
      }),
    );
  }
  return issues;
}

function overlappingSpokes(path: Path, spokes: readonly Cidr[]): Issue[] {
  return spokes.flatMap((spoke, index) => {
    const earlier = spokes.slice(0, index).find((other) => cidrsOverlap(other, spoke));
    if (earlier === undefined) return [];
    return [
      error('LB_KERNEL_SPOKES', [...path, index], `Spokes ${earlier.text} and ${spoke.text} overlap`, {
        found: `"${spoke.text}"`,
        expected: 'blocks that have no address in common',
        reason: 'An address belongs to one spoke, or its flows could be taken for those of another',
      }),
    ];
  });
}

/** Policy routing is asked after the table of local addresses. */
function ownFrontends(draft: Draft, { mode }: KernelInput, ownAddresses: readonly IpAddress[]): Issue[] {
  if (mode !== 'floating-routed') return [];
  return draft.frontends
    .filter(({ value }) => ownAddresses.some((own) => compareAddresses(own, value.address) === 0))
    .map(({ path, value: { name, address } }) =>
      error('LB_KERNEL_ADDRESS', [...path, 'address'], `Frontend "${name}" is an address of this machine`, {
        found: `"${address.text}"`,
        expected: 'an address that is routed to this machine, and that only backends have',
        reason: 'What this machine takes for itself it does not route on',
      }),
    );
}
