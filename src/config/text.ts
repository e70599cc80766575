import { findNodeAtLocation, parseTree, printParseErrorCode, type Node, type ParseError } from 'jsonc-parser';
import { errorMessage } from '../model/errors.js';
import { error, type Issue, type Path } from './findings.js';

/** A place in a text, counted from 1. */
export interface TextPosition {
  readonly line: number;
  readonly column: number;
}

/** JSON text that was read, or the one thing that is wrong with its syntax. */
export type JsonText =
  | {
      readonly ok: true;
      readonly value: unknown;
      /** Keys given twice, and the one key that JavaScript objects cannot hold like any other. */
      readonly issues: readonly Issue[];
      /** Where the value at `path` stands, or its key; the nearest thing around it where it is missing. */
      locate(path: Path, atKey: boolean): TextPosition;
    }
  | { readonly ok: false; readonly issue: Issue; readonly position: TextPosition };

/** Deeper than any configuration, and shallow enough for every recursive reader of it. */
const MAXIMUM_DEPTH = 64;

const STRICT = { disallowComments: true, allowTrailingComma: false, allowEmptyContent: false };

/**
 * Reads strict JSON (RFC 8259): no comments, no trailing commas. A leading byte order mark is ignored. Only the
 * first syntax error is reported, since the ones after it mostly follow from it.
 */
export function readJsonText(textWithMark: string): JsonText {
  const text = textWithMark.startsWith('\uFEFF') ? textWithMark.slice(1) : textWithMark;
  const starts = lineStarts(text);
  const failed = (offset: number, message: string): JsonText => ({
    ok: false,
    issue: error('LB_CONFIG_SYNTAX', [], message),
    position: positionOf(starts, offset),
  });

  const tooDeep = offsetBeyondDepth(text, MAXIMUM_DEPTH);
  if (tooDeep !== undefined)
    return failed(tooDeep, `Broken JSON: nested more than ${MAXIMUM_DEPTH} levels deep`);
  const errors: ParseError[] = [];
  const root = parseTree(text, errors, STRICT);
  const first = errors[0];
  if (first !== undefined) return failed(first.offset, describe(text, first));
  let value: unknown;
  try {
    // The judge: whatever jsonc-parser lets pass, only JSON counts.
    value = JSON.parse(text);
  } catch (thrown) {
    return failed(0, `Broken JSON: ${errorMessage(thrown)}`);
  }
  if (root === undefined) return failed(0, 'Broken JSON: the file is empty');
  return {
    ok: true,
    value,
    issues: keyIssues(root, []),
    locate: (path, atKey) => positionOf(starts, offsetOf(root, path, atKey)),
  };
}

function describe(text: string, { error: code, offset, length }: ParseError): string {
  const words = printParseErrorCode(code)
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .replace('expected', ' expected')
    .replace(/\s+/g, ' ')
    .trim();
  const there = text.slice(offset, offset + Math.min(Math.max(length, 1), 20));
  return `Broken JSON: ${words}${there === '' ? ' at the end of the file' : `, found ${JSON.stringify(there)}`}`;
}

function offsetBeyondDepth(text: string, limit: number): number | undefined {
  let depth = 0;
  let inString = false;
  for (let offset = 0; offset < text.length; offset++) {
    const character = text[offset];
    if (inString) {
      if (character === '\\') offset += 1;
      else if (character === '"' || character === '\n') inString = false;
    } else if (character === '"') {
      inString = true;
    } else if (character === '{' || character === '[') {
      depth += 1;
      if (depth > limit) return offset;
    } else if (character === '}' || character === ']') {
      depth -= 1;
    }
  }
  return undefined;
}

function keyIssues(node: Node, path: Path): Issue[] {
  const issues: Issue[] = [];
  const seen = new Set<string>();
  for (const [index, child] of (node.children ?? []).entries()) {
    const isProperty = child.type === 'property';
    const key = isProperty ? child.children?.[0] : undefined;
    const value = isProperty ? child.children?.[1] : child;
    const at = [...path, key === undefined ? index : String(key.value)];
    if (key !== undefined) {
      const name = String(key.value);
      const tell = (code: string, message: string) => issues.push(error(code, at, message, { atKey: true }));
      if (seen.has(name)) tell('LB_DUPLICATE_KEY', `Key "${name}" is given more than once`);
      if (name === '__proto__') tell('LB_UNKNOWN_KEY', `Unknown key "${name}"`);
      seen.add(name);
    }
    if (value?.children !== undefined) issues.push(...keyIssues(value, at));
  }
  return issues;
}

function offsetOf(root: Node, path: Path, atKey: boolean): number {
  for (let length = path.length; length > 0; length--) {
    const node = findNodeAtLocation(root, path.slice(0, length));
    if (node === undefined) continue;
    const key = node.parent?.type === 'property' ? node.parent.children?.[0] : undefined;
    return atKey && length === path.length && key !== undefined ? key.offset : node.offset;
  }
  return root.offset;
}

function lineStarts(text: string): readonly number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}

function positionOf(starts: readonly number[], offset: number): TextPosition {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - (starts[low] ?? 0) + 1 };
}

/** The candidate that `word` most likely was meant to be, or undefined if none is close enough. Case is ignored. */
export function nearestWord(word: string, candidates: Iterable<string>): string | undefined {
  // Longer than any key or name; keeps the distance table small for hostile input.
  if (word.length > 80) return undefined;
  const folded = word.toLowerCase();
  const limit = Math.max(1, Math.floor(word.length / 3));
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const distance = editDistance(folded, candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance in which a swap of neighbours counts as one (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let cost = Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, (beforePrevious[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}
