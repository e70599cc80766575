import type { HealthEvent } from '../model/health-event.js';

/**
 * What is posted: the event as haports has it, and the same under the names of Azure's table ALBHealthEvent, so that
 * what reads those can read this. Documented in docs/health-events.md.
 */
export function webhookBody(event: HealthEvent): object {
  const { name, severity, subject, evidence, atMs } = event;
  return {
    ...event,
    Type: 'ALBHealthEvent',
    SourceSystem: 'haports',
    TimeGenerated: new Date(atMs).toISOString(),
    operationName: 'LoadBalancerHealthEvent',
    HealthEventType: name,
    Severity: severity === 'critical' ? 'Critical' : 'Warning',
    Description: `${subject}: ${evidence}`,
  };
}
