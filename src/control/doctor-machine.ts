import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';

/** How much it matters. `problem`: flows do not get through, or not all. */
export type DoctorLevel = 'fine' | 'note' | 'warning' | 'problem';

export interface DoctorFinding {
  readonly level: DoctorLevel;
  readonly text: string;
  /** Commands or steps that put it right. */
  readonly fix?: readonly string[];
}

/** What was found about one thing: the machine, a frontend, a backend. */
export interface DoctorSection {
  readonly title: string;
  readonly findings: readonly DoctorFinding[];
}

export interface ToolAnswer {
  /** Undefined where it did not run to its end. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** `ENOENT` where it is not installed. */
  readonly failure?: string;
}

/** A TCP connection that is tried. */
export interface Knock {
  readonly to: IpAddress;
  readonly port: number;
  readonly fromPort?: number;
  readonly fromAddress?: IpAddress;
}

/** `connected` and `refused` came from the other end. Else an error code, `silence`, or OUT_OF_TIME. */
export type KnockAnswer = string;

/** This machine, as it is examined; tests bring another. Nothing rejects. */
export interface DoctorMachine {
  monotonicMs(): number;
  run(tool: 'nft' | 'ip' | 'conntrack' | 'ping', args: readonly string[]): Promise<ToolAnswer>;
  /** Undefined where there is no such file, or it may not be read. */
  readText(path: string): Promise<string | undefined>;
  knock(target: Knock): Promise<KnockAnswer>;
  /** Settings that are not as the mode needs them, in words. */
  wrongSettings(configuration: Configuration): Promise<readonly WrongSetting[]>;
  /** Why the kernel would not take the ruleset; undefined: it would. */
  refusal(configuration: Configuration): Promise<string | undefined>;
}

export interface WrongSetting {
  /** `net.ipv4.ip_forward is 0, must be 1: ...`. */
  readonly text: string;
  /** Whether nothing at all is forwarded so. */
  readonly fatal: boolean;
}

/** It was not tried: the time for all of it is up. */
export const OUT_OF_TIME = 'out of time';

/** The same machine; after that time nothing that waits for others is begun. What is begun ends in seconds. */
export function withinTime(machine: DoctorMachine, limitMs: number): DoctorMachine {
  const untilMs = machine.monotonicMs() + limitMs;
  const isLate = (): boolean => machine.monotonicMs() >= untilMs;
  return {
    monotonicMs: () => machine.monotonicMs(),
    run: (tool, args) =>
      tool === 'ping' && isLate()
        ? Promise.resolve({ exitCode: undefined, stdout: '', stderr: '', failure: OUT_OF_TIME })
        : machine.run(tool, args),
    readText: (path) => machine.readText(path),
    knock: (target) => (isLate() ? Promise.resolve(OUT_OF_TIME) : machine.knock(target)),
    wrongSettings: (configuration) => machine.wrongSettings(configuration),
    refusal: (configuration) => machine.refusal(configuration),
  };
}

/** Whether the other end was there, whatever it said. */
export function isAlive(answer: KnockAnswer): boolean {
  return answer === 'connected' || answer === 'refused';
}

/** What `ip -j` says: a list of records, empty where it is none. */
export function ipRecords({ stdout }: ToolAnswer): readonly Record<string, unknown>[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(stdout);
  } catch {
    return [];
  }
  return Array.isArray(parsed)
    ? (parsed as unknown[]).filter(
        (one): one is Record<string, unknown> => typeof one === 'object' && one !== null,
      )
    : [];
}

export function problem(text: string, ...fix: readonly string[]): DoctorFinding {
  return { level: 'problem', text, ...(fix.length === 0 ? {} : { fix }) };
}

export function warning(text: string, ...fix: readonly string[]): DoctorFinding {
  return { level: 'warning', text, ...(fix.length === 0 ? {} : { fix }) };
}

export function note(text: string, ...fix: readonly string[]): DoctorFinding {
  return { level: 'note', text, ...(fix.length === 0 ? {} : { fix }) };
}

export function fine(text: string): DoctorFinding {
  return { level: 'fine', text };
}
