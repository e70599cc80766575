import type { Tool, ToolOutcome, Tools } from '../../src/planes/netfilter/tools.js';

/** Tools of which some calls fail, as they do on a machine that is short of memory: by a sequence that is always the same. */
export class FailingTools implements Tools {
  /** Calls that failed, `nft -f -`. */
  readonly failed: string[] = [];
  /** Share of calls that fail. */
  share = 0;
  readonly #tools: Tools;
  #random: number;

  constructor(tools: Tools, seed: number) {
    this.#tools = tools;
    this.#random = seed;
  }

  async run(
    tool: Tool,
    args: readonly string[],
    options?: Parameters<Tools['run']>[2],
  ): Promise<ToolOutcome> {
    if (this.#next() >= this.share) return this.#tools.run(tool, args, options);
    this.failed.push(`${tool} ${args.join(' ')}`);
    return { exitCode: 1, stdout: '', stderr: `Error: ${tool} was made to fail: Cannot allocate memory` };
  }

  follow(...args: Parameters<Tools['follow']>): () => void {
    return this.#tools.follow(...args);
  }

  /** 0 to 1: a linear congruential generator (Numerical Recipes). */
  #next(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return this.#random / 0x1_0000_0000;
  }
}
