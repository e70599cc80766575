/** Ports fit below this factor, addresses above: IPv4 keys stay under 2^48, exact in a double. */
const PORTS = 65_536;

/** A dotted quad as the kernel writes it, as an unsigned 32-bit number. Nothing is checked. */
export function ipv4Number(text: string): number {
  let value = 0;
  let octet = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === 0x2e) {
      value = value * 256 + octet;
      octet = 0;
    } else {
      octet = octet * 10 + code - 0x30;
    }
  }
  return value * 256 + octet;
}

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

  /** As find, for a new flow, which lets go of it with `release`. */
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
