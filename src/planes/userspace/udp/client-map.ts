import { ipv4Number } from '../../../model/address.js';

/** Never a key: ClientKeys has it for an address without flows. */
const EMPTY = -1;

const LEAST_SLOTS = 8;

/** Of a map that has nothing, as most are where each port has a listener. */
const NO_KEYS = new Float64Array(0);

/**
 * What a listener keeps by client key, for very many clients: a lookup touches two places in memory, where a Map of
 * such keys, which are too large for its fast path, follows pointers for each. Open addressing with linear probing;
 * what is deleted leaves no mark behind (Knuth, TAOCP 3, section 6.4, algorithms L and R). 16 bytes a slot, between a
 * sixth and five eighths of the slots in use. Values are never undefined.
 */
export class ClientMap<T> {
  /** Against clients that choose their ports so that they all fall into one place. */
  readonly #seed: number;
  #keys = NO_KEYS;
  #values: (T | undefined)[] = [];
  #size = 0;

  /** `random` is in [0, 1). */
  constructor(random: () => number = Math.random) {
    this.#seed = Math.floor(random() * 2 ** 32);
  }

  get size(): number {
    return this.#size;
  }

  get(key: number): T | undefined {
    const slot = this.#find(key);
    return slot < 0 ? undefined : this.#values[slot];
  }

  /** The key must be 0 or more, and not be there. */
  add(key: number, value: T): void {
    if (this.#size + 1 > (this.#keys.length >> 3) * 5)
      this.#resize(Math.max(LEAST_SLOTS, this.#keys.length * 2));
    this.#put(key, value);
    this.#size++;
  }

  /** False: it was not there. */
  delete(key: number): boolean {
    const slot = this.#find(key);
    if (slot < 0) return false;
    this.#close(slot);
    this.#size--;
    if (this.#size === 0) this.#resize(0);
    else if (this.#keys.length > LEAST_SLOTS && this.#size < this.#keys.length / 6) {
      this.#resize(this.#keys.length / 2);
    }
    return true;
  }

  /** As they are now. */
  values(): T[] {
    return this.#values.filter((value) => value !== undefined);
  }

  /** As they are now. */
  entries(): (readonly [key: number, value: T])[] {
    return this.#values.flatMap((value, slot) =>
      value === undefined ? [] : [[this.#keys[slot] ?? EMPTY, value] as const],
    );
  }

  /** The key's slot, or -1. */
  #find(key: number): number {
    const keys = this.#keys;
    if (key < 0 || keys.length === 0) return -1;
    const mask = keys.length - 1;
    // There is always an empty slot to stop at.
    for (let slot = this.#home(key, mask); ; slot = (slot + 1) & mask) {
      const found = keys[slot];
      if (found === key) return slot;
      if (found === EMPTY) return -1;
    }
  }

  #put(key: number, value: T): void {
    const keys = this.#keys;
    const mask = keys.length - 1;
    let slot = this.#home(key, mask);
    while (keys[slot] !== EMPTY) slot = (slot + 1) & mask;
    keys[slot] = key;
    this.#values[slot] = value;
  }

  /** Empties a slot and moves up what would no longer be found behind it. */
  #close(slot: number): void {
    const keys = this.#keys;
    const mask = keys.length - 1;
    let hole = slot;
    for (let next = (hole + 1) & mask; ; next = (next + 1) & mask) {
      const key = keys[next] ?? EMPTY;
      if (key === EMPTY) break;
      const home = this.#home(key, mask);
      // It may not move before its home: its way from there is shorter than its way from the hole.
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      keys[hole] = key;
      this.#values[hole] = this.#values[next];
      hole = next;
    }
    keys[hole] = EMPTY;
    this.#values[hole] = undefined;
  }

  #resize(slots: number): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Float64Array(slots).fill(EMPTY);
    this.#values = new Array<T | undefined>(slots).fill(undefined);
    for (const [slot, value] of values.entries()) {
      if (value !== undefined) this.#put(keys[slot] ?? EMPTY, value);
    }
  }

  /** The slot that a key's search starts at: both halves, mixed as MurmurHash3 does in the end (fmix32). */
  #home(key: number, mask: number): number {
    let hash = Math.imul((key / 2 ** 32) ^ this.#seed, 0x9e3779b1) ^ (key | 0);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) & mask;
  }
}

/** Ports fit below this factor, addresses above: IPv4 keys stay under 2^48, exact in a double. */
const PORTS = 65_536;

/** The port of the endpoint that has the key. */
export function portOfKey(key: number): number {
  return key % PORTS;
}

interface Interned {
  readonly number: number;
  flows: number;
}

/**
 * Numbers for client endpoints, to find their flows by. IPv4 addresses are their own number; IPv6 addresses get one
 * for as long as they have flows, so that clients without flows cost no memory.
 */
export class ClientKeys {
  readonly #interned: Map<string, Interned> | undefined;
  #nextNumber = 1;

  constructor(family: 4 | 6) {
    this.#interned = family === 4 ? undefined : new Map();
  }

  /** The key of an endpoint; -1 if its address has no flow. */
  find(address: string, port: number): number {
    if (this.#interned === undefined) return ipv4Number(address) * PORTS + port;
    const interned = this.#interned.get(address);
    return interned === undefined ? -1 : interned.number * PORTS + port;
  }

  /** As find, for a new flow, which gives it back with `release`. */
  hold(address: string, port: number): number {
    if (this.#interned === undefined) return this.find(address, port);
    let interned = this.#interned.get(address);
    if (interned === undefined) {
      interned = { number: this.#nextNumber++, flows: 0 };
      this.#interned.set(address, interned);
    }
    interned.flows++;
    return interned.number * PORTS + port;
  }

  release(address: string): void {
    const interned = this.#interned?.get(address);
    if (interned !== undefined && --interned.flows === 0) this.#interned?.delete(address);
  }

  /** Addresses that a number is kept for. */
  get internedCount(): number {
    return this.#interned?.size ?? 0;
  }
}
