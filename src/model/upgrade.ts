/** What came of an upgrade. Plain data. */
export interface UpgradeOutcome {
  /** Of the new control process. */
  readonly pid: number;
  /** Of haports, in the new process. */
  readonly version: string;
  /** Listening sockets handed over, TCP and UDP. */
  readonly sockets: number;
  /** UDP flows handed over. */
  readonly udpFlows: number;
  /** From the start of the new process until it served. */
  readonly durationMs: number;
  /** How long datagrams of clients waited in the sockets meanwhile. */
  readonly udpPauseMs: number;
}
