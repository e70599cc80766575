import type { RuleSlot } from '../../flows/flow.js';
import type { IpAddress, Protocol } from '../../model/address.js';
import { captureSlots, type CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import type { PortOwners, RulePorts } from '../../selection/rule-ports.js';

/** The ports of one captured frontend and protocol, and the rules that serve them. */
export class CapturedPorts {
  readonly frontend: Frontend;
  /** The rule that comes first: what belongs to no port is counted there. */
  readonly first: RuleSlot;
  readonly #owners: PortOwners;
  readonly #slots: readonly RuleSlot[];

  constructor(frontend: Frontend, first: RuleSlot, owners: PortOwners, slots: readonly RuleSlot[]) {
    this.frontend = frontend;
    this.first = first;
    this.#owners = owners;
    this.#slots = slots;
  }

  /** Undefined: no rule serves that port. */
  at(port: number): RuleSlot | undefined {
    return this.#slots[this.#owners.ownerOf(port)];
  }
}

/** All captured ports of a protocol, by the number of the frontend's private addresses. */
export class CapturedFrontends {
  /** Of frontends that some rule serves over this protocol. */
  readonly all: readonly CapturedPorts[];
  readonly #byNumber: (CapturedPorts | undefined)[] = [];
  readonly #numbers: ReadonlyMap<string, number>;

  constructor(
    { frontends }: Pick<Configuration, 'frontends'>,
    rules: { readonly slots: readonly RuleSlot[]; readonly rulePorts: RulePorts },
    protocol: Protocol,
    { block }: Pick<CapturePlan, 'block'>,
  ) {
    const { slots, rulePorts } = rules;
    this.#numbers = captureSlots(
      frontends.map(({ address }) => address),
      block,
    );
    this.all = frontends.flatMap((frontend) => {
      const served = slots.filter(
        ({ rule }) => rule.frontend === frontend && rule.protocols.includes(protocol),
      );
      const first = served.find(({ rule }) => !rule.haPorts) ?? served[0];
      if (first === undefined) return [];
      const owners = rulePorts.at(protocol, frontend.address);
      return [new CapturedPorts(frontend, first, owners, slots)];
    });
    for (const ports of this.all) this.#byNumber[this.numberOf(ports.frontend.address)] = ports;
  }

  numbered(number: number): CapturedPorts | undefined {
    return this.#byNumber[number];
  }

  /** See model/capture.ts, where it is called slot. */
  numberOf({ text }: IpAddress): number {
    return this.#numbers.get(text) ?? -1;
  }
}
