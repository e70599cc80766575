import { parseConntrackEntry, type ConntrackEntry } from './conntrack-entry.js';
import { followConntrack, type ConntrackDeps } from './conntrack-follow.js';

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

/** Without a family, some versions list IPv4 alone. */
const FAMILIES = ['ipv4', 'ipv6'] as const;

/** What `conntrack -L` ends with when all is well. */
const SUCCESS = 'exit code 0';

export interface EntryFollower {
  /** Entries that are new or gone, in batches as they come. */
  onEntries(entries: readonly ConntrackEntry[]): void;
  /** What is known may be wrong: events were lost. Also once at the start of a run, when events have begun to come. */
  onGap(): void;
}

/** Which marks: those that agree with `value` in the bits of `mask`. */
export interface MarkFilter {
  readonly value: number;
  readonly mask: number;
}

/** Entries of conntrack whose marks pass a filter, which the kernel applies. */
export class ConntrackFlows {
  readonly #deps: ConntrackDeps;
  readonly #filter: readonly string[];

  constructor(deps: ConntrackDeps, { value, mask }: MarkFilter) {
    this.#deps = deps;
    this.#filter = ['--mark', `0x${value.toString(16)}/0x${mask.toString(16)}`, '-o', 'id'];
  }

  /** Until the returned function is called. */
  follow(follower: EntryFollower): () => void {
    return followConntrack(this.#deps, this.#filter, {
      onLines: (lines) => follower.onEntries(entriesOf(lines)),
      onGap: () => follower.onGap(),
    });
  }

  /** All there are now, a batch at a time: however many, they are not held at once. False: that failed. Never rejects. */
  async list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    for (const family of FAMILIES) if (!(await this.#listFamily(family, onEntries))) return false;
    return true;
  }

  #listFamily(family: string, onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    const { clock, tools } = this.#deps;
    return new Promise((resolve) => {
      let stop = (): void => undefined;
      const cancel = clock.setTimer(LIST_TIMEOUT_MS, () => {
        stop();
        resolve(false);
      });
      stop = tools.follow('conntrack', ['-L', '-f', family, ...this.#filter], {
        onLines: (lines) => onEntries(entriesOf(lines)),
        onComplaint: () => undefined,
        onEnd: (evidence) => {
          cancel();
          resolve(evidence === SUCCESS);
        },
      });
    });
  }
}

function entriesOf(lines: readonly string[]): ConntrackEntry[] {
  const entries: ConntrackEntry[] = [];
  for (const line of lines) {
    const entry = parseConntrackEntry(line);
    if (entry !== undefined) entries.push(entry);
  }
  return entries;
}
