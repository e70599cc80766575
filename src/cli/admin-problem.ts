import { BalancerError, type ErrorCode, type ErrorSource } from '../model/errors.js';
import type { ReportedFinding } from '../model/plan-report.js';

/** Who is to blame for an answer's code, as the exit code has it: config and usage are the operator's to put right. */
const SOURCES: Readonly<Record<ErrorCode, ErrorSource>> = {
  LB_CONFIG_UNREADABLE: 'config',
  LB_CONFIG_SYNTAX: 'config',
  LB_CONFIG_INVALID: 'config',
  LB_USAGE: 'usage',
  LB_UNKNOWN_BACKEND: 'usage',
  LB_TOO_LARGE: 'usage',
  LB_LISTEN_FAILED: 'system',
  LB_WORKER_LOST: 'system',
  LB_INSTANCE_RUNNING: 'system',
  LB_APPLY_FAILED: 'system',
  LB_RESTART_NEEDED: 'system',
  LB_UPGRADE_FAILED: 'system',
  LB_GATE_EXCEEDED: 'system',
  LB_CONFLICT: 'system',
  LB_NOT_FOUND: 'system',
  LB_UNAUTHORIZED: 'system',
  LB_FORBIDDEN: 'system',
  LB_NOT_RUNNING: 'system',
  LB_KERNEL_DENIED: 'system',
  LB_KERNEL_TOOL_MISSING: 'system',
  LB_KERNEL_UNSUPPORTED: 'system',
  LB_KERNEL_FAILED: 'system',
  LB_INTERNAL: 'internal',
};

/** What the running process refused, with its own words and code. */
export class AdminProblem extends BalancerError {
  /** Of HTTP. */
  readonly status: number;
  /** Of a configuration that cannot be used; else empty. */
  readonly findings: readonly ReportedFinding[];

  constructor(
    message: string,
    options: {
      readonly code: ErrorCode;
      readonly status: number;
      readonly findings?: readonly ReportedFinding[];
    },
  ) {
    super(message, { code: options.code, source: SOURCES[options.code] });
    this.status = options.status;
    this.findings = options.findings ?? [];
  }
}

/** An error answer (RFC 9457, application/problem+json) as an error. Takes anything that a server may send. */
export function problemOf(status: number, body: string): AdminProblem {
  const problem = parsed(body);
  const code = errorCodeOf(problem['code']);
  const words = [problem['detail'], problem['title']].find(
    (text): text is string => typeof text === 'string' && text !== '',
  );
  const findings = Array.isArray(problem['findings']) ? (problem['findings'] as ReportedFinding[]) : [];
  return new AdminProblem(words ?? `The admin API answered with HTTP status ${status}`, {
    code: code ?? 'LB_INTERNAL',
    status,
    findings,
  });
}

function parsed(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function errorCodeOf(code: unknown): ErrorCode | undefined {
  return Object.keys(SOURCES).find((one): one is ErrorCode => one === code);
}
