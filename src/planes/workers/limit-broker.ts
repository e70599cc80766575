import { firstShare, type CapShare, type CapShares, type CapUses } from '../../flows/caps.js';
import type { ListeningSocket } from '../contract.js';
import type { Pulse, TcpEnd, WorkerApi } from './host.js';

/**
 * How long a worker that refused somebody comes first, in pulses: clients that try again a second or two later find
 * what was freed for them.
 */
const WANTING_PULSES = 10;

/** Such a worker's part of what is free is so many times another's, so that one busy worker soon has almost all. */
const WANTING_WEIGHT = 4;

/** One worker's part of one cap. */
interface Account {
  used: number;
  /** Pulses for which it still counts as wanting more. */
  wanting: number;
  /** What it was last told it may use, and of what cap. */
  share: number;
  shareOfCap: number;
  /** The most it may be using: an older, larger share counts until the worker has seen its successor. */
  charge: number;
}

interface Member {
  /** By name of the cap. */
  accounts: ReadonlyMap<string, Account>;
  /** Of the last shares sent. */
  sequence: number;
  lives: boolean;
  /** A later life starts with what is free, not with the first share. */
  hasDied: boolean;
}

/**
 * Shares caps out among workers so that all of them together never exceed one: each may use what it uses and its
 * part of what is free, and gets a larger share only once others have confirmed smaller ones. So a worker may refuse a
 * flow early, while others have room, until one or two pulses later. Places that do not divide go to workers that
 * refused somebody. A cap that was lowered below what is in use lets nobody in until it is kept again.
 */
export class LimitBroker {
  readonly #members: readonly Member[];
  #caps: ReadonlyMap<string, number> = new Map();

  constructor(workers: number) {
    this.#members = Array.from({ length: workers }, () => ({
      ...{ accounts: new Map<string, Account>(), sequence: 0, lives: true, hasDied: false },
    }));
  }

  /** To be called before any worker gets to know of these caps. A living worker takes the first share of a new one. */
  setCaps(caps: ReadonlyMap<string, number>): void {
    this.#caps = caps;
    const workers = this.#members.length;
    for (const [worker, member] of this.#members.entries()) {
      const first = (cap: number): number => (member.lives ? firstShare(cap, worker, workers) : 0);
      member.accounts = this.#accounts(
        (name, cap) => member.accounts.get(name) ?? newAccount(cap, first(cap)),
      );
    }
  }

  /** To be called before the worker is started. Its pulses go to the result, and `left` when its process has exited. */
  join(worker: number, { allow }: Pick<WorkerApi, 'allow'>): { pulse(pulse: Pulse): void; left(): void } {
    const member = this.#members[worker];
    if (member === undefined) throw new RangeError(`There is no worker ${worker}`);
    const handOut = (which: 'all' | 'changed'): void => {
      const shares = this.#handOut(member, which);
      if (shares.size > 0) allow(++member.sequence, shares);
    };
    member.lives = true;
    if (member.hasDied) handOut('all');
    return {
      pulse: ({ uses, sharesSeen }) => {
        if (uses === undefined || !member.lives) return;
        note(member, uses, sharesSeen);
        handOut('changed');
      },
      left: () => {
        const accounts = this.#accounts((_, cap) => newAccount(cap, 0));
        Object.assign(member, { accounts, sequence: 0, lives: false, hasDied: true });
      },
    };
  }

  #accounts(account: (name: string, cap: number) => Account): ReadonlyMap<string, Account> {
    return new Map([...this.#caps].map(([name, cap]) => [name, account(name, cap)]));
  }

  #handOut(member: Member, which: 'all' | 'changed'): CapShares {
    const shares = new Map<string, CapShare>();
    for (const [name, cap] of this.#caps) {
      const accounts = this.#members.flatMap((one) => one.accounts.get(name) ?? []);
      const account = member.accounts.get(name);
      if (account === undefined) continue;
      const unclaimed = Math.max(0, cap - sum(accounts, ({ charge }) => charge));
      const share = Math.min(fairShare(cap, accounts, account), account.share + unclaimed);
      if (which === 'changed' && share === account.share && cap === account.shareOfCap) continue;
      account.share = share;
      account.shareOfCap = cap;
      account.charge = Math.max(account.charge, share);
      shares.set(name, { cap, share });
    }
    return shares;
  }
}

function newAccount(cap: number, share: number): Account {
  return { used: 0, wanting: 0, share, shareOfCap: cap, charge: share };
}

function note({ accounts, sequence }: Member, uses: CapUses, sharesSeen: number): void {
  for (const [name, account] of accounts) {
    const use = uses.get(name);
    if (use === undefined) continue;
    account.used = use.used;
    account.wanting = use.wanting ? WANTING_PULSES : Math.max(0, account.wanting - 1);
    account.charge = Math.max(sharesSeen === sequence ? account.share : account.charge, use.used);
  }
}

/** What a worker should have: what it uses, and its part of what is free. `accounts`: of all workers, in their order. */
function fairShare(cap: number, accounts: readonly Account[], account: Account): number {
  const total = sum(accounts, ({ used }) => used);
  if (total > cap) return Math.floor((account.used * cap) / total);
  const free = cap - total;
  const weights = sum(accounts, weight);
  const part = (one: Account): number => Math.floor((free * weight(one)) / weights);
  const rest = free - sum(accounts, part);
  const own = accounts.indexOf(account);
  const isServedBefore = (other: Account, index: number): boolean =>
    urgency(other) > urgency(account) || (urgency(other) === urgency(account) && index < own);
  return account.used + part(account) + (accounts.filter(isServedBefore).length < rest ? 1 : 0);
}

function weight({ wanting }: Account): number {
  return wanting > 0 ? WANTING_WEIGHT : 1;
}

/** Who gets a place that does not divide: who refused somebody last, then who has one, so that it does not wander. */
function urgency({ wanting, share, used }: Account): number {
  if (wanting > 0) return 1 + wanting;
  return share > used ? 1 : 0;
}

function sum(accounts: readonly Account[], value: (account: Account) => number): number {
  return accounts.reduce((total, account) => total + value(account), 0);
}

/** Whether a port that no worker has can be listened on: undefined, or why not. */
export type PortTrial = (address: string, port: number) => Promise<string | undefined>;

interface Claim {
  readonly workers: Set<number>;
  readonly verdict: Promise<string | undefined>;
  /** Of another process; the workers get copies, as a cluster would give them, and this one stays for the next worker. */
  readonly inherited?: ListeningSocket;
}

/**
 * Tries out TCP ports before the first of several workers listens on them. Node's cluster could report a port that is
 * in use too, but after a failure it counts that worker's attempts apart from the others': the worker would get a
 * socket of its own from then on, which cannot be bound beside the shared one, and the failed one would never be
 * closed (lib/internal/cluster/child.js, `indexes`, in Node 20).
 */
export class SharedPortArbiter {
  readonly #trial: PortTrial;
  readonly #claims = new Map<string, Claim>();

  constructor(trial: PortTrial) {
    this.#trial = trial;
  }

  /** TCP sockets that workers get instead of opening such themselves. They are closed with the last claim. */
  inherit(sockets: readonly ListeningSocket[]): void {
    for (const inherited of sockets) {
      const key = keyOf(inherited);
      this.#claims.get(key)?.inherited?.release();
      this.#claims.set(key, { workers: new Set(), verdict: Promise.resolve(undefined), inherited });
    }
  }

  /** Closes what no worker wanted: connections would wait there for ever. */
  discard(): void {
    for (const [key, { workers, inherited }] of this.#claims) {
      if (inherited === undefined || workers.size > 0) continue;
      inherited.release();
      this.#claims.delete(key);
    }
  }

  /** `left`: to be called when the worker's process has exited, which releases what it had. */
  join(
    worker: number,
    { inherit }: Pick<WorkerApi, 'inherit'>,
  ): {
    claim(ends: readonly TcpEnd[]): Promise<readonly (string | undefined)[]>;
    release(end: TcpEnd): void;
    left(): void;
  } {
    return {
      claim: async (ends) => {
        const errorCodes = await Promise.all(ends.map((end) => this.#judge(worker, end)));
        for (const end of ends) {
          const { inherited, workers } = this.#claims.get(keyOf(end)) ?? {};
          // The worker gets a copy: this process keeps the socket for the next worker.
          if (inherited !== undefined && workers?.has(worker) === true)
            inherit({ ...inherited, release: () => undefined });
        }
        return errorCodes;
      },
      release: (end) => this.#release(worker, keyOf(end)),
      left: () => {
        for (const key of [...this.#claims.keys()]) this.#release(worker, key);
      },
    };
  }

  async #judge(worker: number, end: TcpEnd): Promise<string | undefined> {
    const key = keyOf(end);
    let claim = this.#claims.get(key);
    if (claim === undefined) {
      claim = { workers: new Set(), verdict: this.#trial(end.address, end.port) };
      this.#claims.set(key, claim);
    }
    claim.workers.add(worker);
    const errorCode = await claim.verdict;
    if (errorCode !== undefined && this.#claims.get(key) === claim) this.#release(worker, key);
    return errorCode;
  }

  #release(worker: number, key: string): void {
    const claim = this.#claims.get(key);
    if (claim?.workers.delete(worker) === true && claim.workers.size === 0) {
      this.#claims.delete(key);
      claim.inherited?.release();
    }
  }
}

function keyOf({ address, port }: Pick<TcpEnd, 'address' | 'port'>): string {
  return `${address} ${port}`;
}
