import { isWildcard, type IpAddress } from '../model/address.js';
import type { BoundRule } from './bind-rules.js';
import type { Draft } from './draft.js';
import { error, note, type Issue, type Path } from './finding.js';
import type { FrontendInput } from './schema-frontend.js';
import type { KernelInput } from './schema-kernel.js';

/** Addresses that the kernel data plane, or its mode, cannot steer by. */
export function kernelAddressIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  const options = draft.plane.kind === 'kernel' ? draft.plane.options : undefined;
  return [
    ...zoneIssues(draft),
    ...rules.flatMap(familyIssues),
    ...(options === undefined
      ? []
      : draft.frontends.flatMap(({ path, value }) => [
          ...wildcardIssues(options, [...path, 'address'], value.name, value.address),
          ...accessNotes(options, path, value),
        ])),
  ];
}

/** Marks and maps know addresses, not interfaces. */
function zoneIssues({ frontends, pools }: Draft): Issue[] {
  const zoned = (path: Path, what: string, { text, zone }: IpAddress): Issue[] =>
    zone === undefined
      ? []
      : [
          error('LB_KERNEL_ADDRESS', path, `${what} has an address of one interface only`, {
            found: `"${text}"`,
            expected: 'an address that is not link-local',
            reason:
              'The kernel steers by address alone, and other interfaces may have the same link-local one',
          }),
        ];
  return [
    ...frontends.flatMap(({ path, value: { name, address } }) =>
      zoned([...path, 'address'], `Frontend "${name}"`, address),
    ),
    ...pools.flatMap(({ path, value: pool }) =>
      pool.backends.flatMap(({ address }, index) =>
        zoned([...path, 'backends', index, 'address'], `A backend of pool "${pool.name}"`, address),
      ),
    ),
  ];
}

function wildcardIssues({ mode }: KernelInput, path: Path, name: string, address: IpAddress): Issue[] {
  if ((mode === 'next-hop') === isWildcard(address)) return [];
  const found = `"${address.text}"`;
  if (mode === 'next-hop') {
    return [
      error('LB_KERNEL_MODE', path, `With mode next-hop, frontend "${name}" has no address of its own`, {
        found,
        expected: address.family === 4 ? '"0.0.0.0"' : '"::"',
        reason: 'It stands for the destinations beyond, which packets keep',
      }),
    ];
  }
  return [
    error('LB_KERNEL_MODE', path, `Frontend "${name}" stands for every address of this machine`, {
      found,
      expected: 'a frontend for each address, or mode "next-hop" for destinations beyond',
      reason: "The kernel data plane takes every port of an address away from this machine's own services",
    }),
  ];
}

function familyIssues({ input, frontend, pool }: BoundRule): Issue[] {
  const { family } = frontend.value.address;
  return pool.value.backends.flatMap(({ address }, index) =>
    address.family === family
      ? []
      : [
          error(
            'LB_KERNEL_ADDRESS',
            [...pool.path, 'backends', index, 'address'],
            `Rule "${input.name}" would send IPv${family} packets to an IPv${address.family} address`,
            {
              found: `"${address.text}"`,
              expected: `IPv${family} backends, as frontend "${input.frontend}" is, or kind "userspace"`,
              reason: 'The kernel data plane does not translate between address families',
            },
          ),
        ],
  );
}

/** Pinned, the first packet of a flow alone is asked. */
function accessNotes({ mode, flowState }: KernelInput, path: Path, { allow, deny }: FrontendInput): Issue[] {
  if (mode !== 'next-hop' || flowState !== 'stateless' || allow.length + deny.length === 0) return [];
  const key = allow.length > 0 ? 'allow' : 'deny';
  const message = 'Packets of both directions are held against "allow" and "deny"';
  const reason = 'Without flow state nobody knows which side began a flow';
  return [note('LB_KERNEL_ACCESS', [...path, key], message, { reason })];
}
