import { succeeded, toolFailure, tooOld } from './tool-failure.js';
import type { Tools } from './tools.js';

/** What `nft --version` says. */
export interface ToolVersion {
  /** `nftables v1.0.6 (Lester Gooch #5)`. */
  readonly text: string;
  readonly fit: 'known' | 'newer' | 'too-old';
}

/** The oldest and the newest that haports was tried with. */
const OLDEST: readonly number[] = [1, 0, 6];
const NEWEST: readonly number[] = [1, 1];

/** Undefined where it is no version of nft at all. */
export function parseToolVersion(output: string): ToolVersion | undefined {
  const match = /^nftables v(\d+)\.(\d+)(?:\.(\d+))?.*$/m.exec(output);
  if (match === null) return undefined;
  const numbers = [match[1], match[2], match[3] ?? '0'].map(Number);
  const fit =
    order(numbers, OLDEST) < 0 ? 'too-old' : order(numbers.slice(0, 2), NEWEST) > 0 ? 'newer' : 'known';
  return { text: match[0].trim(), fit };
}

/** Its version, with a note where haports was not tried with it. Rejects with BalancerError where it will not do. */
export async function usableTool(tools: Tools): Promise<string> {
  const outcome = await tools.run('nft', ['--version']);
  if (!succeeded(outcome)) throw toolFailure('nft', outcome);
  const version = parseToolVersion(outcome.stdout);
  if (version === undefined || version.fit === 'too-old')
    throw tooOld(version?.text ?? outcome.stdout.trim());
  return version.fit === 'known' ? version.text : `${version.text}, newer than haports was tried with`;
}

function order(a: readonly number[], b: readonly number[]): number {
  for (const [index, number] of a.entries()) {
    const difference = number - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
