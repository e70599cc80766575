/** Who is to blame: the operator's input, the client side, the backend side, the machine, or haports itself. */
export type ErrorSource = 'config' | 'usage' | 'downstream' | 'upstream' | 'system' | 'internal';

/** Stable codes: match on these, never on messages. */
export type ErrorCode =
  | 'LB_CONFIG_UNREADABLE'
  | 'LB_CONFIG_SYNTAX'
  | 'LB_CONFIG_INVALID'
  | 'LB_USAGE'
  | 'LB_LISTEN_FAILED'
  | 'LB_WORKER_LOST'
  | 'LB_INSTANCE_RUNNING'
  | 'LB_APPLY_FAILED'
  | 'LB_RESTART_NEEDED'
  | 'LB_UPGRADE_FAILED'
  | 'LB_GATE_EXCEEDED'
  | 'LB_UNKNOWN_BACKEND'
  | 'LB_CONFLICT'
  | 'LB_NOT_FOUND'
  | 'LB_UNAUTHORIZED'
  | 'LB_FORBIDDEN'
  | 'LB_TOO_LARGE'
  | 'LB_NOT_RUNNING'
  | 'LB_KERNEL_DENIED'
  | 'LB_KERNEL_TOOL_MISSING'
  | 'LB_KERNEL_UNSUPPORTED'
  | 'LB_KERNEL_FAILED'
  | 'LB_INTERNAL';

export interface BalancerErrorOptions {
  readonly code: ErrorCode;
  readonly source: ErrorSource;
  readonly cause?: unknown;
}

/**
 * The one error family of the control plane. The data path never throws: its outcomes are values.
 * Messages are sentence case without full stop and say what is there and what must be.
 */
export class BalancerError extends Error {
  readonly code: ErrorCode;
  readonly source: ErrorSource;

  constructor(message: string, options: BalancerErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = options.code;
    this.source = options.source;
  }
}

/** The text of anything thrown. */
export function errorMessage(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The system code (`ECONNREFUSED`) of anything thrown, or undefined. */
export function errorCode(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}
