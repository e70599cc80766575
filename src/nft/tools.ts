/** The kernel's own command-line tools, and what asks the way. */
export type Tool = 'nft' | 'ip' | 'conntrack' | 'sysctl' | 'ping';

export interface ToolOutcome {
  /** Undefined where it did not run to its end: `failure` says why. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** `ENOENT` where it is not installed, `EACCES`, `timeout`, `signal SIGKILL`. */
  readonly failure?: string;
}

export interface RunOptions {
  /** What the tool reads as its standard input. @default nothing */
  readonly input?: string;
  /** After that it is killed. @default 10000 */
  readonly timeoutMs?: number;
}

export interface Follower {
  /** Whole lines of standard output, in batches as they come. */
  onLines(lines: readonly string[]): void;
  /** A line of standard error. */
  onComplaint(line: string): void;
  /** It has ended by itself: `exit code 1`, `ENOENT`. Nothing follows. */
  onEnd(evidence: string): void;
}

/** Starts them. One implementation runs processes; tests bring others. */
export interface Tools {
  /** Never rejects. */
  run(tool: Tool, args: readonly string[], options?: RunOptions): Promise<ToolOutcome>;
  /** Runs one that tells of events until it is told to stop. */
  follow(tool: Tool, args: readonly string[], follower: Follower): () => void;
}
