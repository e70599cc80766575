import { compareAddresses, type IpAddress } from '../model/address.js';
import { addressesOverlap } from './addresses-overlap.js';
import type { Draft } from './draft.js';
import type { Path } from './finding.js';

/** A place where haports itself takes TCP connections that are no flows. */
export interface OwnListen {
  readonly what: string;
  readonly path: Path;
  readonly address: IpAddress;
  /** Never 0: what listens on any free port takes one that nobody else has. */
  readonly port: number;
}

/** Metrics and the admin API. */
export function ownListens({ root }: Draft): readonly OwnListen[] {
  const named = [
    { what: "haports' metrics", path: ['metrics', 'listen'], at: root.metrics?.listen },
    { what: "haports' admin API", path: ['admin', 'http'], at: root.admin?.http },
  ];
  return named.flatMap(({ what, path, at }) =>
    at === undefined || at.port === 0 ? [] : [{ what, path, address: at.address, port: at.port }],
  );
}

/**
 * Those that would get what is sent to `frontend`. Packets for addresses that this machine need not have, or has not,
 * reach none of its wildcard listeners; packets for destinations beyond reach none at all.
 */
export function ownListensAt(draft: Draft, frontend: IpAddress): readonly OwnListen[] {
  const mode = draft.plane.kind === 'kernel' ? draft.plane.options?.mode : undefined;
  if (mode === 'next-hop') return [];
  const reaches = mode === 'floating-l2' || mode === 'floating-routed' ? isSame : addressesOverlap;
  return ownListens(draft).filter(({ address }) => reaches(address, frontend));
}

function isSame(a: IpAddress, b: IpAddress): boolean {
  return compareAddresses(a, b) === 0;
}
