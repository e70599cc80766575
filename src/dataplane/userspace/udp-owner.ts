import { ipAddress, type IpAddress } from '../../model/address.js';
import type { Hash32 } from '../../selection/hasher.js';

/** Which worker owns an address and port: an index below the number of workers. */
export type OwnerOf = (address: IpAddress, port: number) => number;

/** Not a worker's index: there are at most 64. */
const UNKNOWN = 0xff;
const ALL_PORTS = 65536;

/**
 * Rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): the worker
 * with the highest xxh32 (seed 0) of address bytes, port (2, big endian) and worker index (1) owns the socket. Whether a
 * worker lives changes nothing, and one worker more takes over an equal part from each of the others. IPv4-mapped
 * addresses are IPv4 here as everywhere; zones are left out.
 */
export function rendezvousOwner(hash: Hash32, workers: number): OwnerOf {
  if (workers === 1) return () => 0;
  // Every plan asks for every port again, which is up to workers times 65,535 hashes an address.
  const known = new Map<string, Uint8Array>();
  return (address, port) => {
    let owners = known.get(address.text);
    if (owners === undefined) known.set(address.text, (owners = new Uint8Array(ALL_PORTS).fill(UNKNOWN)));
    const present = owners[port];
    if (present !== undefined && present !== UNKNOWN) return present;
    return (owners[port] = highestScore(hash, address, port, workers));
  };
}

/**
 * Of TCP ports that one worker has alone: the owner of the port whatever the address. A listener on a wildcard address
 * and one on a single address are in each other's way, and the one worker that has both can close one for the other.
 */
export function tcpOwner(ownerOf: OwnerOf): OwnerOf {
  const everywhere = { 4: ipAddress('0.0.0.0'), 6: ipAddress('::') };
  return ({ family }, port) => ownerOf(everywhere[family], port);
}

function highestScore(hash: Hash32, address: IpAddress, port: number, workers: number): number {
  const { length } = address.bytes;
  const input = new Uint8Array(length + 3);
  input.set(address.bytes);
  input[length] = port >> 8;
  input[length + 1] = port & 0xff;
  let owner = 0;
  let best = -1;
  for (let worker = 0; worker < workers; worker++) {
    input[length + 2] = worker;
    const score = hash(input, 0);
    if (score <= best) continue;
    best = score;
    owner = worker;
  }
  return owner;
}
