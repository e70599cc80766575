import type { FlowOrigin, OriginFeed, OriginFollower } from '../model/flow-origin.js';
import { followConntrack, type ConntrackDeps } from './conntrack-follow.js';
import { ConntrackLines } from './conntrack-line.js';

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

/** UDP origins as `conntrack -E` tells of them, run again whenever it ends. */
export class ConntrackEvents implements OriginFeed {
  readonly #deps: ConntrackDeps;
  readonly #lines = new ConntrackLines();

  constructor(deps: ConntrackDeps) {
    this.#deps = deps;
  }

  follow(port: number, follower: OriginFollower): () => void {
    return followConntrack(this.#deps, filterOf(port), {
      onLines: (lines) => {
        for (const line of lines) this.#tell(line, follower);
      },
      onGap: () => follower.onGap(),
    });
  }

  async list(port: number): Promise<readonly FlowOrigin[] | undefined> {
    // Without a family, some versions tell of IPv4 alone.
    const outcomes = await Promise.all(
      ['ipv4', 'ipv6'].map((family) =>
        this.#deps.tools.run('conntrack', ['-L', '-f', family, ...filterOf(port)], {
          timeoutMs: LIST_TIMEOUT_MS,
        }),
      ),
    );
    if (outcomes.some(({ exitCode }) => exitCode !== 0)) return undefined;
    return outcomes.flatMap(({ stdout }) =>
      stdout.split('\n').flatMap((line) => this.#lines.parse(line) ?? []),
    );
  }

  #tell(line: string, follower: OriginFollower): void {
    const kind = line.charAt(line.indexOf('[') + 1);
    if (kind !== 'N' && kind !== 'D') return;
    const origin = this.#lines.parse(line);
    if (origin === undefined) return;
    if (kind === 'N') follower.onNew(origin);
    else follower.onGone(origin);
  }
}

function filterOf(port: number): readonly string[] {
  return ['-p', 'udp', '--reply-port-src', `${port}`, '-o', 'id'];
}
