import { createHash } from 'node:crypto';

/*
 * What is compared of an answer. Facts must stay as they are: exit codes, codes, paths, numbers, choices. Wording may be
 * improved: it is recorded as a set of sentences, and a difference is reported, not failed.
 */

export interface Answer {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How an answer is read. `words`: only exit code and error codes are facts. */
export type View = 'json' | 'words' | 'ruleset';

export interface Observation {
  readonly facts: unknown;
  readonly wording: readonly string[];
}

export function observe(view: View, answer: Answer): Observation {
  const exit = answer.exitCode;
  const wording: string[] = [];
  // Of several lines of the log only those that fail a command are stable: `haports: LB_USAGE: ...`, `file:1:2: error LB_...`.
  const errors = [...answer.stderr.matchAll(/^(?:haports: |\S+: error )(LB_\w+)/gm)].map(([, code]) => code);
  const failed = { ...(errors.length > 0 && { errors }), exit };
  if (answer.stderr !== '') wording.push(answer.stderr.trimEnd());
  if (view === 'json' && answer.stdout !== '') {
    const parsed = tryJson(answer.stdout);
    if (parsed === undefined) return { facts: { ...failed, notJson: answer.stdout }, wording };
    return { facts: { ...failed, answer: factsOf(parsed, wording) }, wording };
  }
  if (view === 'ruleset' && exit === 0) {
    return { facts: { ...failed, ruleset: normaliseRuleset(answer.stdout) }, wording };
  }
  if (answer.stdout !== '') wording.push(answer.stdout.trimEnd());
  return { facts: failed, wording };
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

type JsonObject = Readonly<Record<string, unknown>>;

/** Members that hold sentences, wherever they are. */
const PROSE = new Set(['description', 'detail', 'evidence', 'steps', 'title']);

/** A value without its sentences, which are added to `wording`; keys in order. */
export function factsOf(value: unknown, wording: string[]): unknown {
  if (Array.isArray(value)) {
    if (value.length > 0 && value.every(isFinding)) return findingFacts(value, wording);
    return value.map((item: unknown) => factsOf(item, wording));
  }
  if (typeof value !== 'object' || value === null) return value;
  const facts: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (PROSE.has(key) && (typeof member === 'string' || Array.isArray(member))) {
      wording.push(...[member].flat().map(String));
    } else facts[key] = factsOf(member, wording);
  }
  return facts;
}

function isFinding(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && 'severity' in value && 'code' in value;
}

/** `error LB_TYPE rules[0].symmetric 12:5`, in an order that does not depend on the order of the checks. */
function findingFacts(findings: readonly JsonObject[], wording: string[]): string[] {
  const facts = findings.map((finding) => {
    const text = (key: string) => {
      const value = finding[key] ?? '';
      return typeof value === 'string' || typeof value === 'number' ? String(value) : JSON.stringify(value);
    };
    wording.push(`${text('code')}: ${['message', 'found', 'expected', 'reason'].map(text).join(' | ')}`);
    return `${text('severity')} ${text('code')} ${text('path')} ${text('line')}:${text('column')}`;
  });
  return facts.toSorted();
}

/**
 * nft text as blocks (a chain, a set, a table's elements) with their lines, and all other commands. The order of rules in
 * a chain is kept; that of chains, sets, elements and routes is not promised. Comments are left out, and many elements
 * become their number and a digest.
 */
export function normaliseRuleset(text: string): unknown {
  const blocks = new Map<string, string[]>();
  const elements = new Map<string, string[]>();
  const commands: string[] = [];
  let block: string[] | undefined;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || line.startsWith('comment ')) continue;
    const [, set, members] = /^(\w+ element .*?) \{ (.*) \}$/.exec(line) ?? [];
    if (set !== undefined && members !== undefined) {
      elements.set(set, [...(elements.get(set) ?? []), ...members.split(', ')]);
    } else if (/^(chain|set|map|ct timeout) .*\{$/.test(line)) {
      block = [];
      blocks.set(line, block);
    } else if (line === '}') block = undefined;
    else (block ?? commands).push(line);
  }
  const few = 8;
  const listed = [...elements].map(([set, members]): [string, string[]] => {
    const sorted = members.toSorted();
    if (sorted.length <= few) return [set, sorted];
    return [set, [`${sorted.length} elements`, createHash('sha256').update(sorted.join()).digest('hex')]];
  });
  const sorted = [...blocks, ...listed].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const texts = sorted.map(([name, lines]) => [name, lines.join('\n')]);
  return { ...(Object.fromEntries(texts) as object), commands: commands.toSorted() };
}
