import { compareAddresses, isWildcard, type IpAddress } from '../model/address.js';

/** Whether one socket bound to each could get the same packet. `::` counts as both families (dual stack). */
export function addressesOverlap(a: IpAddress, b: IpAddress): boolean {
  const takesAll = (wild: IpAddress, other: IpAddress) =>
    isWildcard(wild) && (wild.family === 6 || other.family === 4);
  return compareAddresses(a, b) === 0 || takesAll(a, b) || takesAll(b, a);
}
