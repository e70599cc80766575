import {
  fromBytes,
  isWildcard,
  parseCidr,
  type Cidr,
  type FiveTuple,
  type IpAddress,
} from '../model/address.js';
import type { Configuration, Frontend } from '../model/configuration.js';
import { portSetSize, type PortSet } from '../model/ports.js';
import { RulePorts } from '../selection/rule-ports.js';

export interface PopulationSize {
  readonly flows: number;
  /** Distinct client addresses. */
  readonly sources: number;
  /** The same seed gives the same flows. Whole, 0 to 2^32-1. */
  readonly seed: number;
}

/** Where clients come from unless the frontend's allow list says otherwise: RFC 1918, and RFC 3849. */
const CLIENTS: Readonly<Record<4 | 6, Cidr>> = { 4: block('10.0.0.0/8'), 6: block('2001:db8::/32') };

/** What a wildcard frontend is addressed by. RFC 5737, and RFC 3849. */
const SOME_ADDRESS: Readonly<Record<4 | 6, IpAddress>> = {
  4: fromBytes([192, 0, 2, 1]),
  6: fromBytes([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
};

const LOWEST_CLIENT_PORT = 1024;

/** Above this, addresses are made anew for each flow rather than kept. */
const REMEMBERED_SOURCES = 65_536;

/** Odd, so that multiples of it modulo a power of two do not repeat (Knuth, TAOCP 3, section 6.4: 2^32 / phi). */
const SCATTER = 0x9e3779b1;

/**
 * Random flows that a rule would get: clients that its frontend's allow list admits, the frontend's address, and ports
 * of the rule that no stronger rule takes. None where the rule has no such port. Pure.
 */
export function* generatedTuples(
  configuration: Configuration,
  ruleIndex: number,
  { flows, sources, seed }: PopulationSize,
): Generator<FiveTuple> {
  const rule = configuration.rules[ruleIndex];
  if (rule === undefined) return;
  const { frontend } = rule;
  const rulePorts = new RulePorts(configuration.rules);
  const targets = rule.protocols.flatMap((protocol) => {
    const ports = rulePorts.at(protocol, frontend.address).portsOf(ruleIndex);
    return ports.length === 0 ? [] : [{ protocol, ports, size: portSetSize(ports) }];
  });
  if (targets.length === 0) return;
  const { address } = frontend;
  const destination = isWildcard(address) ? SOME_ADDRESS[address.family] : address;
  const below = randomNumbers(seed);
  const clients = new Clients(frontend, seed, sources);
  for (let count = 0; count < flows; count++) {
    const target = targets[below(targets.length)];
    if (target === undefined) return;
    yield {
      protocol: target.protocol,
      source: clients.address(below(sources)),
      sourcePort: LOWEST_CLIENT_PORT + below(65_536 - LOWEST_CLIENT_PORT),
      destination,
      destinationPort: portAt(target.ports, below(target.size)),
    };
  }
}

/** Client addresses by number. Numbers below 2^24 give different ones, as long as the blocks have room. */
class Clients {
  readonly #blocks: readonly Cidr[];
  readonly #offset: number;
  readonly #known: IpAddress[] | undefined;

  constructor({ address: { family }, allow }: Frontend, seed: number, sources: number) {
    const allowed = allow.filter(({ address }) => address.family === family);
    this.#blocks = allowed.length > 0 ? allowed : [CLIENTS[family]];
    this.#offset = seed;
    this.#known = sources <= REMEMBERED_SOURCES ? [] : undefined;
  }

  address(number: number): IpAddress {
    const known = this.#known?.[number];
    if (known !== undefined) return known;
    const block = this.#blocks[number % this.#blocks.length] ?? CLIENTS[4];
    const made = within(block, (Math.imul(number, SCATTER) + this.#offset) >>> 0);
    if (this.#known !== undefined) this.#known[number] = made;
    return made;
  }
}

/** The address of a block whose last four bytes are these, as far as the block's prefix leaves them free. */
function within({ address, prefixLength }: Cidr, value: number): IpAddress {
  const { bytes } = address;
  return fromBytes(
    bytes.map((byte, index) => {
      const shift = (bytes.length - 1 - index) * 8;
      const wanted = shift > 24 ? 0 : (value >>> shift) & 0xff;
      const fixedBits = Math.min(8, Math.max(0, prefixLength - index * 8));
      const free = 0xff >> fixedBits;
      return (byte & ~free) | (wanted & free);
    }),
  );
}

function portAt(ports: PortSet, position: number): number {
  let left = position;
  for (const { first, last } of ports) {
    const size = last - first + 1;
    if (left < size) return first + left;
    left -= size;
  }
  throw new RangeError(`No port ${position} in a set of ${portSetSize(ports)}`);
}

/**
 * Random whole numbers from 0 to below a bound, the same for the same seed: mulberry32 (Tommy Ettinger, public domain).
 * For populations, never for secrets.
 */
function randomNumbers(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
}

function block(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new TypeError(`Not an address block: "${text}"`);
  return parsed;
}
