import type { FlowOrigin } from '../model/flow-origin.js';
import { copied, number, word } from './conntrack-text.js';

/** Texts kept of which each occurs in many lines. */
const MOST_SHARED = 1024;

/**
 * Parses lines of `conntrack -E` and `-L`, with `-o id`, of protocols that have ports:
 *
 *     [NEW] udp      17 30 src=C dst=F sport=CP dport=FP [UNREPLIED] src=R dst=S sport=RP dport=SP id=2286605049
 *
 * There may be more fields between, and `[DESTROY]` may lack the seconds.
 */
export class ConntrackLines {
  /** Addresses of this machine. What is cut out of a line would keep the whole batch of lines in memory. */
  readonly #shared = new Map<string, string>();

  /** Undefined: it is no such line. */
  parse(line: string): FlowOrigin | undefined {
    const source = line.indexOf('src=');
    const destination = line.indexOf('dst=', source);
    const sourcePort = line.indexOf('sport=', destination);
    const destinationPort = line.indexOf('dport=', sourcePort);
    const receiver = line.indexOf('src=', destinationPort);
    const seen = line.indexOf('dst=', receiver);
    const seenPort = line.indexOf('dport=', seen);
    const id = line.indexOf(' id=', seenPort);
    // indexOf starts anew at 0 after a -1, so the order has to be looked at.
    const isWhole =
      source >= 0 &&
      destination > source &&
      sourcePort > destination &&
      destinationPort > sourcePort &&
      receiver > destinationPort &&
      seen > receiver &&
      seenPort > seen &&
      id > seenPort;
    if (!isWhole) return undefined;
    const seenAddress = copied(word(line, seen + 4));
    const client = word(line, source + 4);
    return {
      id: number(line, id + 4),
      receiver: this.#sharedText(word(line, receiver + 4)),
      seenAddress,
      seenPort: number(line, seenPort + 6),
      source: client === seenAddress ? seenAddress : copied(client),
      sourcePort: number(line, sourcePort + 6),
      destination: this.#sharedText(word(line, destination + 4)),
      destinationPort: number(line, destinationPort + 6),
      remainingMs: numberBefore(line, source - 1) * 1000,
    };
  }

  #sharedText(text: string): string {
    let shared = this.#shared.get(text);
    if (shared === undefined) {
      if (this.#shared.size >= MOST_SHARED) this.#shared.clear();
      shared = copied(text);
      this.#shared.set(shared, shared);
    }
    return shared;
  }
}

/** The decimal number that ends before the space there; 0: there is none, but the protocol's number and spaces. */
function numberBefore(line: string, space: number): number {
  const start = line.lastIndexOf(' ', space - 1) + 1;
  // `udp      17 src=`: that is the protocol's.
  if (start < 2 || line.charCodeAt(start - 2) === 0x20) return 0;
  return number(line, start);
}
