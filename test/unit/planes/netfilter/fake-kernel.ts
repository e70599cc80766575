import type { Tool, ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';

/**
 * Tools over a kernel of one table, which takes every transaction: enough to see what is written when. Routes and the
 * rest are as texts of `ip`.
 */
export class FakeKernel implements Tools {
  /** Transactions in order, and `ip` commands that change something. */
  readonly written: string[] = [];
  /** Names the outcome of a command instead of running it; undefined: run it. */
  intercept: ((tool: Tool, line: string, input: string) => Partial<ToolOutcome> | undefined) | undefined;
  routes = new Set<string>();
  table: string | undefined;
  #handle = 0;

  async run(
    tool: Tool,
    args: readonly string[],
    options: { readonly input?: string } = {},
  ): Promise<ToolOutcome> {
    await Promise.resolve();
    const line = args.join(' ');
    const outcome =
      this.intercept?.(tool, line, options.input ?? '') ?? this.#run(tool, line, options.input ?? '');
    return { exitCode: 0, stdout: '', stderr: '', ...outcome };
  }

  follow(): () => void {
    return () => undefined;
  }

  #run(tool: Tool, line: string, input: string): Partial<ToolOutcome> {
    if (tool === 'ip') return this.#ip(line);
    if (line === '--version') return { stdout: 'nftables v1.0.6 (Lester Gooch #5)\n' };
    if (line === '-f -') {
      this.written.push(input);
      if (input.includes('delete table')) {
        this.table = input.includes('{') ? `table inet haports { # handle ${++this.#handle}\n}` : undefined;
      }
      return {};
    }
    return { stdout: line.endsWith('list ruleset') ? `${this.table ?? ''}\n` : '' };
  }

  #ip(line: string): Partial<ToolOutcome> {
    const change = /^-4 route (replace|del) (.*)$/.exec(line);
    if (change === null)
      return { stdout: line.startsWith('-N -j -4 route show table local') ? this.#routes() : '[]' };
    this.written.push(line);
    if (change[1] === 'del') this.routes.delete(change[2] ?? '');
    else this.routes.add(change[2] ?? '');
    return {};
  }

  #routes(): string {
    const records = Array.from(this.routes, (text) => {
      const [, dst, , dev, , , , metric] = text.split(' ');
      return { type: 'local', dst, dev, metric: Number(metric) };
    });
    return JSON.stringify(records);
  }
}
