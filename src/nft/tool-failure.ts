import { BalancerError, type ErrorCode } from '../model/errors.js';
import type { Tool, ToolOutcome } from './tools.js';

/** Where Debian has them. */
const PACKAGES: Readonly<Record<Tool, string>> = {
  nft: 'nftables',
  ip: 'iproute2',
  conntrack: 'conntrack',
  sysctl: 'procps',
  ping: 'iputils-ping',
};

/** One line for people; longer complaints, such as those that repeat the input, are cut. */
const MAX_TEXT_CHARS = 300;

export function succeeded({ exitCode }: ToolOutcome): boolean {
  return exitCode === 0;
}

/** What went wrong, in one line, with what to do about it. Only for an outcome that is no success. */
export function toolFailure(tool: Tool, outcome: ToolOutcome): BalancerError {
  const text = complaint(outcome);
  if (outcome.failure === 'ENOENT') {
    return error(
      'LB_KERNEL_TOOL_MISSING',
      `${tool} is not installed: it must be in PATH (Debian and Ubuntu: apt-get install ${PACKAGES[tool]})`,
    );
  }
  if (/operation not permitted|permission denied|must be root/i.test(text) || outcome.failure === 'EACCES') {
    return error(
      'LB_KERNEL_DENIED',
      `${tool} was denied by the kernel: haports must have CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN; container: --cap-add NET_ADMIN), found: ${text}`,
    );
  }
  if (isUnsupported(text)) {
    return error('LB_KERNEL_UNSUPPORTED', `This kernel or this ${tool} cannot do what is needed: ${text}`);
  }
  return error('LB_KERNEL_FAILED', `${tool} failed: ${text}`);
}

export function tooOld(version: string): BalancerError {
  return error('LB_KERNEL_UNSUPPORTED', `${version} is too old: nftables must be 1.0.6 or newer`);
}

/** Modules or expressions that are missing show as ENOENT, since a transaction deletes nothing that may be absent. */
function isUnsupported(text: string): boolean {
  return /not supported|no such file or directory|syntax error|unknown option|is unknown|unrecognized option|invalid option/i.test(
    text,
  );
}

function complaint({ exitCode, failure, stderr }: ToolOutcome): string {
  // The first lines say it. What follows repeats the input, with a line of carets.
  const lines = stderr.split('\n', 20).map((line) => line.trim());
  const telling = lines.filter((line) => /error|denied|not permitted|cannot|failed|answers/i.test(line));
  const text = (telling[0] ?? lines.find((line) => line !== '') ?? '').slice(0, MAX_TEXT_CHARS);
  const end = failure ?? `exit code ${exitCode}`;
  return text === '' ? end : failure === undefined ? text : `${text} (${failure})`;
}

function error(code: ErrorCode, message: string): BalancerError {
  return new BalancerError(message, { code, source: 'system' });
}
