import type { IpAddress } from '../model/address.js';
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
