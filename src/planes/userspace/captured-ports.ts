import type { IpAddress, Protocol } from '../../model/address.js';
import { captureSlots, type CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend, Rule } from '../../model/configuration.js';
import { portsOf } from '../../model/ports.js';

/** Who serves a port of a captured frontend. */
export interface CapturedEnd {
  readonly rule: Rule;
  readonly ruleIndex: number;
  readonly frontend: Frontend;
}

const NOBODY = 0;

/** The ports of one captured frontend and protocol, and the rules that serve them. */
export class CapturedPorts {
  readonly frontend: Frontend;
  readonly #ends: CapturedEnd[] = [];
  /** By port, one more than an index into `#ends`. */
  readonly #byPort = new Uint16Array(65536);

  constructor(frontend: Frontend) {
    this.frontend = frontend;
  }

  /** Undefined: nobody serves that port. */
  at(port: number): CapturedEnd | undefined {
    const index = this.#byPort[port] ?? NOBODY;
    return index === NOBODY ? undefined : this.#ends[index - 1];
  }

  get isEmpty(): boolean {
    return this.#ends.length === 0;
  }

  /** Ports that another rule has already stay its own. */
  add(rule: Rule, ruleIndex: number): void {
    this.#ends.push({ rule, ruleIndex, frontend: this.frontend });
    for (const port of portsOf(rule.ports)) {
      if (this.#byPort[port] === NOBODY) this.#byPort[port] = this.#ends.length;
    }
  }

  /** The rule that comes first: what belongs to no port is counted there. */
  get first(): CapturedEnd | undefined {
    return this.#ends[0];
  }
}

/** All captured ends of a protocol: by the frontend's address, or by the slot of its private addresses. */
export class CapturedEnds {
  readonly #byAddress = new Map<string, CapturedPorts>();
  readonly #bySlot: readonly (CapturedPorts | undefined)[];
  readonly #slots: ReadonlyMap<string, number>;

  /** Rules that name a port beat HA-ports rules. */
  constructor(configuration: Configuration, protocol: Protocol, { block }: CapturePlan) {
    const { frontends, rules } = configuration;
    this.#slots = captureSlots(
      frontends.map(({ address }) => address),
      block,
    );
    const ranked = rules
      .map((rule, ruleIndex) => ({ rule, ruleIndex }))
      .sort((a, b) => Number(a.rule.haPorts) - Number(b.rule.haPorts));
    for (const frontend of frontends) {
      const ports = new CapturedPorts(frontend);
      for (const { rule, ruleIndex } of ranked) {
        if (rule.frontend === frontend && rule.protocols.includes(protocol)) ports.add(rule, ruleIndex);
      }
      if (!ports.isEmpty) this.#byAddress.set(frontend.address.text, ports);
    }
    const bySlot: (CapturedPorts | undefined)[] = [];
    for (const [address, slot] of this.#slots) bySlot[slot] = this.#byAddress.get(address);
    this.#bySlot = bySlot;
  }

  /** Of frontends that some rule serves over this protocol. */
  all(): readonly CapturedPorts[] {
    return [...this.#byAddress.values()];
  }

  of(frontendAddress: string): CapturedPorts | undefined {
    return this.#byAddress.get(frontendAddress);
  }

  ofSlot(slot: number): CapturedPorts | undefined {
    return this.#bySlot[slot];
  }

  slotOf({ text }: IpAddress): number {
    return this.#slots.get(text) ?? -1;
  }
}
