import type { EntrySource } from '../../../../src/planes/netfilter/conntrack.js';
import {
  parseConntrackEntry,
  type ConntrackEntry,
  type EntryFollower,
} from '../../../../src/planes/netfilter/conntrack.js';

export interface FakeFlow {
  readonly id: number;
  readonly mark: number;
  /** @default 'tcp' */
  readonly protocol?: 'tcp' | 'udp' | 'icmp';
  readonly source?: string;
  readonly sourcePort?: number;
  readonly destination?: string;
  readonly destinationPort?: number;
  readonly state?: string;
  readonly remainingSeconds?: number;
  readonly ageSeconds?: number;
  /** Packets and bytes to the backend, packets and bytes to the client. */
  readonly traffic?: readonly [number, number, number, number];
  readonly unreplied?: boolean;
  readonly byProgram?: boolean;
}

/** A line as conntrack writes it; `kind` is what stands in brackets, '' in a listing. */
export function entryLine(kind: 'NEW' | 'DESTROY' | '', flow: FakeFlow): string {
  const { protocol = 'tcp', source = '10.1.0.2', destination = '10.9.0.10' } = flow;
  const { sourcePort = 40_000, destinationPort = 80, state = 'ESTABLISHED', traffic } = flow;
  const ports = (from: number, to: number): string =>
    protocol === 'icmp' ? 'type=8 code=0 id=77 ' : `sport=${from} dport=${to} `;
  const counts = (index: 0 | 2): string =>
    traffic === undefined ? '' : `packets=${traffic[index]} bytes=${traffic[index + 1]} `;
  return [
    kind === '' ? '' : `    [${kind}] `,
    `${protocol} ${{ tcp: 6, udp: 17, icmp: 1 }[protocol]} `,
    flow.remainingSeconds === undefined ? '' : `${flow.remainingSeconds} `,
    protocol === 'tcp' ? `${state} ` : '',
    `src=${source} dst=${destination} ${ports(sourcePort, destinationPort)}${counts(0)}`,
    flow.unreplied === true ? '[UNREPLIED] ' : '',
    `src=10.2.0.11 dst=${source} ${ports(destinationPort, sourcePort)}${counts(2)}`,
    `mark=${flow.mark} `,
    flow.ageSeconds === undefined ? '' : `delta-time=${flow.ageSeconds} `,
    `id=${flow.id}`,
    flow.byProgram === true ? ' [USERSPACE] portid=7' : '',
  ].join('');
}

/** A kernel whose flows a test sets. */
export class FakeEntries implements EntrySource {
  /** What a listing finds. */
  present: FakeFlow[] = [];
  lists = 0;
  isWhole = true;
  /** Called when a listing has told all but not ended. */
  beforeEnd: () => void = () => undefined;
  #follower: EntryFollower | undefined;

  get isFollowed(): boolean {
    return this.#follower !== undefined;
  }

  follow(follower: EntryFollower): () => void {
    this.#follower = follower;
    follower.onGap();
    return () => {
      this.#follower = undefined;
    };
  }

  list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean> {
    this.lists++;
    onEntries(this.present.flatMap((flow) => parseConntrackEntry(entryLine('', flow)) ?? []));
    this.beforeEnd();
    return Promise.resolve(this.isWhole);
  }

  begin(flow: FakeFlow): void {
    this.present.push(flow);
    this.#tell('NEW', { state: 'SYN_SENT', unreplied: true, ...flow });
  }

  end(flow: FakeFlow): void {
    this.present = this.present.filter(({ id }) => id !== flow.id);
    this.#tell('DESTROY', flow);
  }

  gap(): void {
    this.#follower?.onGap();
  }

  #tell(kind: 'NEW' | 'DESTROY', flow: FakeFlow): void {
    const entry = parseConntrackEntry(entryLine(kind, flow));
    if (entry !== undefined) this.#follower?.onEntries([entry]);
  }
}
