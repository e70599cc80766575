/**
 * How what this process keeps in the kernel stands. `in-place`: as it should be, when last looked. `failing`: it could
 * not be put in place, which is tried again. `absent`: not put in place yet, or taken away at the end.
 */
export type KernelState = 'in-place' | 'failing' | 'absent';

/** What a plane keeps in the kernel. Plain data. */
export interface KernelReport {
  /** `inet haports`. */
  readonly table: string;
  /** `capture, udp redirect`, and why that was chosen. */
  readonly mode: string;
  readonly why: string;
  readonly state: KernelState;
  /** Milliseconds since the epoch: since when it is in that state. */
  readonly sinceMs: number;
  /** Times that it was found lost or altered, and put right. */
  readonly repairs: number;
  /** Transactions that failed. */
  readonly failures: number;
  /** The text of the last failure, as the tool wrote it. */
  readonly lastFailure?: { readonly atMs: number; readonly text: string };
  /** `nftables v1.0.6 (Lester Gooch #5)`. */
  readonly tool: string;
}
