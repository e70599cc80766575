import { builtinModules } from 'node:module';
import type { SourceFile } from './source-scan.js';

/** Who may import what. A part is a folder (`model/`), a file (`compose.ts`) or the start of names (`compose-`). */
export interface Layout {
  /** Part -> the parts that it may import besides itself. The longest part that a path starts with counts. */
  readonly mayImport: Readonly<Record<string, readonly string[] | 'anything'>>;
  /** Module of Node or package -> the parts that may import it. Packages that are not named here are forbidden. */
  readonly onlyIn: Readonly<Record<string, readonly string[]>>;
}

/** One line per violation; empty: the rule holds. */
export type Rule = (files: readonly SourceFile[], layout: Layout) => readonly string[];

const MAY_BE_EXTENDED = ['Error', 'TypeError', 'RangeError', 'BalancerError'];
const FORBIDDEN_NAMES = /^(?:utils?|helpers?|index|common|misc|shared|types|constants)\.tsx?$/;
const KEBAB_CASE = /^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.d\.ts|\.tsx?)$/;
const LINES_LIMIT = 900;

function partOf(path: string, layout: Layout): string | undefined {
  return Object.keys(layout.mayImport)
    .filter((part) => path.startsWith(part))
    .sort((a, b) => b.length - a.length)[0];
}

export const everyFileHasAPlace: Rule = (files, layout) =>
  files
    .filter((file) => partOf(file.path, layout) === undefined)
    .map((file) => `${file.path} is in no part of the table`);

export const importsRunOneWay: Rule = (files, layout) =>
  files.flatMap((file) => {
    const from = partOf(file.path, layout) ?? '';
    const allowed = layout.mayImport[from] ?? [];
    if (allowed === 'anything') return [];
    return file.imports.flatMap((entry) => {
      if (entry.file === undefined) return [];
      const to = partOf(entry.file, layout);
      if (to !== undefined && (to === from || allowed.includes(to))) return [];
      return [
        `${file.path}:${entry.line} imports ${entry.file}: ${from} may import ${allowed.join(' ') || 'nothing'}`,
      ];
    });
  });

export const restrictedModulesStayHome: Rule = (files, layout) =>
  files.flatMap((file) =>
    file.imports.flatMap((entry) => {
      if (entry.file !== undefined) return [];
      const where = `${file.path}:${entry.line} imports ${entry.specifier}`;
      const name = packageOf(entry.specifier);
      const homes = layout.onlyIn[name];
      if (homes === undefined) {
        if (!name.startsWith('node:')) return [`${where}: it is in no row of the table`];
        if (!builtinModules.includes(name.slice('node:'.length)))
          return [`${where}: Node has no such module`];
        return file.path.startsWith('model/') ? [`${where}: model imports no module of Node`] : [];
      }
      return homes.some((home) => file.path.startsWith(home))
        ? []
        : [`${where}: only ${homes.join(' ') || 'nobody'} may`];
    }),
  );

/** `hono/tiny` is the package hono; Node's modules are named whole. */
function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

export const relativeImportsNameAFile: Rule = (files) => {
  const known = new Set(files.map((file) => file.path));
  return files.flatMap((file) =>
    file.imports
      .filter(
        (entry) => entry.file !== undefined && !(entry.specifier.endsWith('.js') && known.has(entry.file)),
      )
      .map((entry) => `${file.path}:${entry.line} imports "${entry.specifier}", which is no file of src`),
  );
};

/** Depth-first search; each cycle is named once, by the files on it. */
export const noFileImportsItself: Rule = (files) => {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const state = new Map<string, 'open' | 'done'>();
  const trail: string[] = [];
  const findings: string[] = [];
  const walk = (path: string): void => {
    if (state.get(path) === 'done') return;
    if (state.get(path) === 'open') {
      findings.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      return;
    }
    state.set(path, 'open');
    trail.push(path);
    for (const entry of byPath.get(path)?.imports ?? []) if (entry.file !== undefined) walk(entry.file);
    trail.pop();
    state.set(path, 'done');
  };
  for (const file of files) walk(file.path);
  return findings;
};

export const namesAreTelling: Rule = (files) =>
  files.flatMap((file) => {
    const name = file.path.slice(file.path.lastIndexOf('/') + 1);
    if (FORBIDDEN_NAMES.test(name)) return [`${file.path} is named after nothing in particular`];
    return KEBAB_CASE.test(name) ? [] : [`${file.path} is not in kebab-case`];
  });

export const filesAreShort: Rule = (files) =>
  files
    .filter((file) => file.lines > LINES_LIMIT)
    .map((file) => `${file.path} has ${file.lines} lines, ${LINES_LIMIT} is the limit`);

export const syntaxIsPlain: Rule = (files) =>
  files.flatMap((file) =>
    file.traits
      .filter((trait) => !(trait.kind === 'class extends' && MAY_BE_EXTENDED.includes(trait.text)))
      .map((trait) => `${file.path}:${trait.line} ${trait.kind}: ${trait.text}`),
  );
