/** A backend was found. */
export interface Picked {
  readonly kind: 'picked';
  /** Into `configuration.rules`. */
  readonly ruleIndex: number;
  /** Into `state.views`. */
  readonly viewIndex: number;
  /** Into the view's `backends`. */
  readonly backendIndex: number;
  readonly backendId: string;
  /** Of the flow's key bytes, unsigned 32 bits; with `skipped` added to the seed where the data plane hashes again. */
  readonly hash: number;
  /** The slot whose backend was taken: the one that the hash (and sequence) named, or `skipped` slots after it. */
  readonly slot: number;
  /** `retry`: the first slot's backend was excluded. `fail-open`: nobody is eligible and the rule says so. */
  readonly reason: 'hash' | 'retry' | 'fail-open';
  /** Slots walked past because their backend was excluded, or times hashed again for that. */
  readonly skipped: number;
}

/** No rule covers the destination address, port and protocol. */
export interface NoRule {
  readonly kind: 'no-rule';
}

/** The frontend's allow and deny lists do not admit the source. */
export interface Denied {
  readonly kind: 'denied';
  readonly ruleIndex: number;
}

/** A rule, but nobody to take the flow. Never remembered: the next packet asks again. */
export interface NoBackend {
  readonly kind: 'none';
  readonly ruleIndex: number;
  /** `no-eligible`: the table is empty. `all-excluded`: every backend in it was tried in vain or is at its cap. */
  readonly cause: 'no-eligible' | 'all-excluded';
  /** From the rule's `allDown`; `reset` where that is `fail-open` and even this found nobody. */
  readonly action: 'reset' | 'drop';
}

/** What selecting for a rule that is already known can give. */
export type RulePickResult = Picked | NoBackend;

/** What selection can give. Outcomes are values: nothing on this path throws but bugs. */
export type PickResult = RulePickResult | NoRule | Denied;
