/** Azure's names (LoadBalancerHealthEvent), and those of the probe-truth monitor and the skew advisor. */
export type HealthEventName =
  | 'DataPathAvailabilityWarning'
  | 'DataPathAvailabilityCritical'
  | 'NoHealthyBackends'
  | 'HighSnatPortUsage'
  | 'SnatPortExhaustion'
  | 'ProbeUpTrafficFailing'
  | 'ProbeDownTrafficFine'
  | 'SourceAffinitySkew';

/** Something about the health of the balancer or a backend that an operator should know of. Plain data. */
export interface HealthEvent {
  readonly type: 'health-event';
  readonly name: HealthEventName;
  readonly severity: 'warning' | 'critical';
  /** `resolved`: what was told before is over. */
  readonly phase: 'raised' | 'again' | 'resolved';
  /** What it is about: a frontend, pool, rule or backend id. */
  readonly subject: string;
  /** For people: what was measured, and against what. */
  readonly evidence: string;
  readonly atMs: number;
}
