import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CORPUS } from './cases.js';
import type { Observation } from './observe.js';

/* `recorded/CLASS.jsonl` has a line for each case, its id and its facts; `recorded/wording.jsonl` one for each distinct sentence of a class. */

const FOLDER = join(CORPUS, 'recorded');
const WORDING = 'wording.jsonl';

/** Whether a case is in one of these classes; with none named, it is. */
export type Wanted = (id: string) => boolean;

export function classOf(id: string): string {
  return id.split('/', 1)[0] ?? '';
}

export function readFacts(wanted: Wanted): Map<string, unknown> {
  const files = readdirSync(FOLDER).filter((name) => name !== WORDING && wanted(`${name.split('.')[0]}/`));
  const lines = files.flatMap((name) => readLines(name) as [string, unknown][]);
  return new Map(lines.filter(([id]) => wanted(id)));
}

/** `CLASS: sentence`. */
export function readWording(wanted: Wanted): Set<string> {
  const lines = readLines(WORDING) as [string, string][];
  return new Set(lines.filter(([kind]) => wanted(`${kind}/`)).map(([kind, text]) => `${kind}: ${text}`));
}

export function wordingOf(observed: ReadonlyMap<string, Observation>): Set<string> {
  return new Set(
    [...observed].flatMap(([id, { wording }]) => wording.map((text) => `${classOf(id)}: ${text}`)),
  );
}

/** Writes the classes that were observed anew, and leaves all others as they are. */
export function writeRecorded(observed: ReadonlyMap<string, Observation>): void {
  mkdirSync(FOLDER, { recursive: true });
  const classes = new Set([...observed.keys()].map(classOf));
  for (const kind of classes) {
    const lines = [...observed].filter(([id]) => classOf(id) === kind).map(([id, { facts }]) => [id, facts]);
    writeLines(`${kind}.jsonl`, lines);
  }
  const others = [...readWording((id) => !classes.has(classOf(id)))];
  const sentences = [...others, ...wordingOf(observed)].map((line) => {
    const [, kind = '', text = ''] = /^([^:]*): (.*)$/s.exec(line) ?? [];
    return [kind, text];
  });
  writeLines(WORDING, sentences);
}

function readLines(name: string): unknown[] {
  let text: string;
  try {
    text = readFileSync(join(FOLDER, name), 'utf8');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}

function writeLines(name: string, lines: readonly unknown[]): void {
  const sorted = lines.map((line) => JSON.stringify(line)).toSorted();
  writeFileSync(join(FOLDER, name), `${sorted.join('\n')}\n`);
}
