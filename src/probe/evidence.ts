import { errorCode, errorMessage } from '../model/errors.js';
import type { Probe, ProbeResult } from '../model/probe.js';

/** A result whose duration is not known yet. */
export type Verdict = Omit<ProbeResult, 'durationMs'>;

/** Out of descriptors or memory: the probe never left this process. */
const STARVED = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

/** Errors whose cause is on this machine, with what to look for. */
const LOCAL_PROBLEMS: Readonly<Record<string, string>> = {
  EMFILE: 'this process is out of file descriptors',
  ENFILE: 'this machine is out of file descriptors',
  ENOBUFS: 'no socket memory',
  ENOMEM: 'no memory',
  // With every local port bound, a connect without an address of its own finds no port.
  EADDRNOTAVAIL: 'no free local port, or the source address is not of this machine; set sourceAddress',
  EADDRINUSE: 'no free local port at the source address',
  ENETUNREACH: 'no route to the backend',
  ENETDOWN: 'the network interface is down',
  EACCES: 'forbidden by this machine',
  EPERM: 'forbidden by this machine',
  EINVAL: 'source address and backend do not fit together',
  EAFNOSUPPORT: 'this machine lacks the address family',
};

/** `5s`, `1.5s`, `250ms` */
export function formatDuration(milliseconds: number): string {
  return milliseconds < 1000 ? `${milliseconds}ms` : `${milliseconds / 1000}s`;
}

/** Nothing (useful) came before the timeout. */
export function noAnswer(probe: Probe): Verdict {
  return {
    verdict: 'failure',
    answer: 'silence',
    evidence: `no answer in ${formatDuration(probe.timeoutMs)}`,
  };
}

/** The backend answered, and the answer is bad. */
export function badAnswer(evidence: string): Verdict {
  return { verdict: 'failure', answer: 'explicit', evidence };
}

/**
 * The verdict of a probe that ended in an error. A refused connection is an explicit answer to a TCP probe; to an
 * HTTP probe it is silence, as is a reset one: Azure lets only an HTTP status change the state at once.
 */
export function failed(error: unknown, probe: Probe): Verdict {
  const code = errorCode(error);
  if (code === undefined) return { verdict: 'failure', answer: 'silence', evidence: errorMessage(error) };
  const localProblem = LOCAL_PROBLEMS[code];
  if (localProblem !== undefined) {
    const evidence = `${code} (local problem: ${localProblem})`;
    const verdict: Verdict = { verdict: 'failure', answer: 'silence', evidence };
    return STARVED.has(code) ? { ...verdict, inconclusive: true } : verdict;
  }
  const answer = code === 'ECONNREFUSED' && probe.protocol === 'tcp' ? 'explicit' : 'silence';
  return { verdict: 'failure', answer, evidence: code };
}
