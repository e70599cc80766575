/** One event as the admin API tells it: what the log has, with an id to go on from. Plain data. */
export interface FeedEvent {
  /** Grows by one with each event of the process. */
  readonly id: number;
  readonly atMs: number;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** `health-changed`, `drain-started` ... */
  readonly type: string;
  /** For people. */
  readonly message: string;
  /** What is in it besides, as in the log. */
  readonly fields: Readonly<Record<string, unknown>>;
}
