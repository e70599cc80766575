import assert from 'node:assert/strict';
import { builtinModules } from 'node:module';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { scanFolder, scanText } from './support/source-scan.js';
import type { SourceFile } from './support/source-scan.js';

/*
 * The shape of src/, as a table. A part is a folder (`model/`) or a file (`compose.ts`); the longest match wins.
 * Imports run one way: a part may import itself and what stands to its right, in any form, types included.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[] | 'anything'>> = {
  'model/': [],
  'runtime/': ['model/'],

  'config/': ['model/', 'runtime/'],
  'selection/': ['model/', 'runtime/'],
  'pool/': ['model/', 'runtime/'],
  'flow/': ['model/', 'runtime/'],
  'probe/': ['model/', 'runtime/'],
  'nft/': ['model/', 'runtime/'],

  // Planes know neither the configuration, nor who controls them, nor each other.
  'dataplane/data-plane.ts': ['model/'],
  'dataplane/userspace/': ['model/', 'runtime/', 'selection/', 'flow/', 'dataplane/data-plane.ts'],
  'dataplane/kernel/': ['model/', 'runtime/', 'selection/', 'flow/', 'nft/', 'dataplane/data-plane.ts'],
  'dataplane/remote/': ['model/', 'runtime/', 'dataplane/data-plane.ts'],

  // Control sees only the interface of a plane.
  'control/': [
    ...['model/', 'runtime/', 'config/', 'selection/', 'pool/', 'flow/', 'probe/'],
    'dataplane/data-plane.ts',
  ],

  // What people and scrapers look at. Only the composition root imports observe and admin.
  'observe/': ['model/', 'runtime/', 'dataplane/data-plane.ts'],
  'admin/': ['model/', 'runtime/', 'dataplane/data-plane.ts'],
  'demo/': ['model/', 'runtime/'],
  'cli/': [
    ...['model/', 'runtime/', 'config/', 'selection/', 'pool/', 'flow/', 'control/'],
    ...['dataplane/data-plane.ts', 'compose.ts'],
  ],

  // The composition root, and the entry points of the processes.
  'compose.ts': 'anything',
  'compose-': 'anything',
  'main.ts': 'anything',
  'worker.ts': 'anything',
};

/** Node's modules and packages that only these parts may import. Other modules of Node are free, except to model. */
const ONLY_IN: Readonly<Record<string, readonly string[]>> = {
  'node:net': ['dataplane/userspace/', 'probe/', 'admin/', 'cli/', 'demo/'],
  'node:dgram': ['dataplane/userspace/', 'demo/'],
  'node:tls': ['probe/', 'admin/'],
  'node:http': ['probe/', 'admin/', 'cli/', 'demo/'],
  'node:https': ['probe/', 'admin/', 'cli/', 'demo/'],
  'node:http2': [],
  'node:child_process': ['nft/runner.ts', 'dataplane/remote/worker-launcher.ts', 'demo/'],
  'node:cluster': [],
  'node:worker_threads': [],
  'node:fs': ['runtime/files.ts', 'runtime/append-file.ts'],
  'node:fs/promises': ['runtime/files.ts', 'runtime/append-file.ts'],
  'node:module': [],
  'node:vm': [],

  '@hono/node-server': ['admin/'],
  commander: ['cli/'],
  hono: ['admin/'],
  'ipaddr.js': ['model/'],
  'jsonc-parser': ['config/'],
  pino: ['observe/'],
  'pino-pretty': ['observe/'],
  'prom-client': ['observe/'],
  'xxhash-wasm': ['selection/hasher.ts'],
  zod: ['config/'],
};

const MAY_BE_EXTENDED = ['Error', 'TypeError', 'RangeError', 'BalancerError'];
const FORBIDDEN_NAMES = /^(?:utils?|helpers?|index|common|misc|shared|types|constants)\.ts$/;
const KEBAB_CASE = /^[a-z0-9]+(?:-[a-z0-9]+)*\.ts$/;
const LINES_LIMIT = 300;

type Rule = (files: readonly SourceFile[]) => readonly string[];

/** The longest key of the table that a path starts with. */
function partOf(path: string): string | undefined {
  return Object.keys(MAY_IMPORT)
    .filter((part) => path.startsWith(part))
    .sort((a, b) => b.length - a.length)[0];
}

const everyFileHasAPlace: Rule = (files) =>
  files
    .filter((file) => partOf(file.path) === undefined)
    .map((file) => `${file.path} is in no part of the table`);

const importsRunOneWay: Rule = (files) =>
  files.flatMap((file) => {
    const from = partOf(file.path) ?? '';
    const allowed = MAY_IMPORT[from] ?? [];
    if (allowed === 'anything') return [];
    return file.imports.flatMap((entry) => {
      if (entry.file === undefined) return [];
      const to = partOf(entry.file);
      if (to !== undefined && (to === from || allowed.includes(to))) return [];
      return [
        `${file.path}:${entry.line} imports ${entry.file}: ${from} may import ${allowed.join(' ') || 'nothing'}`,
      ];
    });
  });

const restrictedModulesStayHome: Rule = (files) =>
  files.flatMap((file) =>
    file.imports.flatMap((entry) => {
      if (entry.file !== undefined) return [];
      const where = `${file.path}:${entry.line} imports ${entry.specifier}`;
      const name = packageOf(entry.specifier);
      const homes = ONLY_IN[name];
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

const relativeImportsNameAFile: Rule = (files) => {
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
const noFileImportsItself: Rule = (files) => {
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

const namesAreTelling: Rule = (files) =>
  files.flatMap((file) => {
    const name = file.path.slice(file.path.lastIndexOf('/') + 1);
    if (FORBIDDEN_NAMES.test(name)) return [`${file.path} is named after nothing in particular`];
    return KEBAB_CASE.test(name) ? [] : [`${file.path} is not in kebab-case`];
  });

const filesAreShort: Rule = (files) =>
  files
    .filter((file) => file.lines > LINES_LIMIT)
    .map((file) => `${file.path} has ${file.lines} lines, ${LINES_LIMIT} is the limit`);

const syntaxIsPlain: Rule = (files) =>
  files.flatMap((file) =>
    file.traits
      .filter((trait) => !(trait.kind === 'class extends' && MAY_BE_EXTENDED.includes(trait.text)))
      .map((trait) => `${file.path}:${trait.line} ${trait.kind}: ${trait.text}`),
  );

const sources = scanFolder(join(process.cwd(), 'src'));

function assertHolds(rule: Rule): void {
  assert.ok(sources.length > 10, 'src/ is there');
  const findings = rule(sources);
  assert.equal(findings.length, 0, `\n  ${findings.join('\n  ')}`);
}

describe('src/', () => {
  test('has no file outside the table', () => assertHolds(everyFileHasAPlace));
  test('imports one way', () => assertHolds(importsRunOneWay));
  test('keeps restricted modules and packages where they belong', () =>
    assertHolds(restrictedModulesStayHome));
  test('imports only files that exist, by their .js name', () => assertHolds(relativeImportsNameAFile));
  test('has no import cycle', () => assertHolds(noFileImportsItself));
  test('names its files in kebab-case after something', () => assertHolds(namesAreTelling));
  test('has no file above 300 lines', () => assertHolds(filesAreShort));
  test('has no enum, namespace, default or star export, inheritance beyond Error, or module-level state', () =>
    assertHolds(syntaxIsPlain));
});

describe('the rules', () => {
  const planted: readonly (readonly [string, Rule, string, string, readonly string[]])[] = [
    [
      'a file without a place',
      everyFileHasAPlace,
      'misc/thing.ts',
      '',
      ['misc/thing.ts is in no part of the table'],
    ],
    [
      'model importing runtime, as a type',
      importsRunOneWay,
      'model/rule.ts',
      "import type { Clock } from '../runtime/clock.js';",
      ['model/rule.ts:1 imports runtime/clock.ts: model/ may import nothing'],
    ],
    [
      'a plane importing another, dynamically',
      importsRunOneWay,
      'dataplane/kernel/kernel-plane.ts',
      "\nconst other = await import('../userspace/userspace-plane.js');",
      [
        'dataplane/kernel/kernel-plane.ts:2 imports dataplane/userspace/userspace-plane.ts: dataplane/kernel/ may ' +
          'import model/ runtime/ selection/ flow/ nft/ dataplane/data-plane.ts',
      ],
    ],
    [
      'control importing a plane',
      importsRunOneWay,
      'control/a.ts',
      "export { x } from '../dataplane/userspace/x.js';",
      [],
    ],
    [
      'control importing observe',
      importsRunOneWay,
      'control/a.ts',
      "let x: import('../observe/logger.js').Logger;",
      [],
    ],
    ['cli importing admin', importsRunOneWay, 'cli/status.ts', "import { x } from '../admin/server.js';", []],
    ['config importing selection', importsRunOneWay, 'config/a.ts', "import '../selection/picker.js';", []],
    [
      'fs outside its adapter',
      restrictedModulesStayHome,
      'config/load.ts',
      "import { readFile } from 'node:fs/promises';",
      ['config/load.ts:1 imports node:fs/promises: only runtime/files.ts runtime/append-file.ts may'],
    ],
    ['net in flow', restrictedModulesStayHome, 'flow/a.ts', "import type { Socket } from 'node:net';", []],
    ['dgram in probe', restrictedModulesStayHome, 'probe/a.ts', "import dgram from 'node:dgram';", []],
    [
      'child_process in control',
      restrictedModulesStayHome,
      'control/a.ts',
      "import 'node:child_process';",
      [],
    ],
    [
      'a module of Node in model',
      restrictedModulesStayHome,
      'model/a.ts',
      "import { isIP } from 'node:util';",
      [],
    ],
    [
      'a part of a package',
      restrictedModulesStayHome,
      'observe/a.ts',
      "import { Hono } from 'hono/tiny';",
      [],
    ],
    ['a package nobody listed', restrictedModulesStayHome, 'cli/a.ts', "import lodash from 'lodash';", []],
    ['a module of Node without prefix', restrictedModulesStayHome, 'cli/a.ts', "import fs from 'fs';", []],
    ['an import that is computed', restrictedModulesStayHome, 'cli/a.ts', 'await import(name);', []],
    ['require', restrictedModulesStayHome, 'cli/a.ts', "const pino = require('pino');", []],
    ['an import without .js', relativeImportsNameAFile, 'cli/a.ts', "import { b } from './a';", []],
    ['an import of nothing', relativeImportsNameAFile, 'cli/a.ts', "import { b } from './b.js';", []],
    [
      'a file importing itself',
      noFileImportsItself,
      'cli/a.ts',
      "import { b } from './a.js';",
      ['cli/a.ts -> cli/a.ts'],
    ],
    ['utils.ts', namesAreTelling, 'cli/utils.ts', '', ['cli/utils.ts is named after nothing in particular']],
    ['camelCase', namesAreTelling, 'cli/flowTable.ts', '', ['cli/flowTable.ts is not in kebab-case']],
    [
      '301 lines',
      filesAreShort,
      'cli/a.ts',
      'x;\n'.repeat(301),
      ['cli/a.ts has 301 lines, 300 is the limit'],
    ],
    ['an enum', syntaxIsPlain, 'cli/a.ts', 'enum Colour { red }', ['cli/a.ts:1 enum: Colour']],
    ['a namespace', syntaxIsPlain, 'cli/a.ts', 'namespace Shape {}', ['cli/a.ts:1 namespace: Shape']],
    [
      'a default export',
      syntaxIsPlain,
      'cli/a.ts',
      'export default 1;',
      ['cli/a.ts:1 default export: default'],
    ],
    [
      'a default class',
      syntaxIsPlain,
      'cli/a.ts',
      'export default class {}',
      ['cli/a.ts:1 default export: default'],
    ],
    ['a barrel', syntaxIsPlain, 'cli/a.ts', "export * from './b.js';", ['cli/a.ts:1 star export: ./b.js']],
    ['inheritance', syntaxIsPlain, 'cli/a.ts', 'class A extends Base {}', ['cli/a.ts:1 class extends: Base']],
    [
      'module-level let',
      syntaxIsPlain,
      'cli/a.ts',
      'export let count = 0;',
      ['cli/a.ts:1 module state: count'],
    ],
    [
      'an empty registry',
      syntaxIsPlain,
      'cli/a.ts',
      'const known = new Map();',
      ['cli/a.ts:1 module state: known'],
    ],
  ];
  for (const [what, rule, path, text, expected] of planted) {
    test(`find ${what}`, () => {
      const findings = rule([scanText(path, text)]);
      if (expected.length > 0) assert.deepEqual(findings, expected);
      else assert.equal(findings.length, 1, findings.join('; '));
    });
  }

  test('find a cycle over three files, and call a diamond none', () => {
    const imports = (path: string, ...names: readonly string[]): SourceFile =>
      scanText(path, names.map((name) => `import './${name}.js';`).join('\n'));
    const cycle = [imports('cli/a.ts', 'b'), imports('cli/b.ts', 'c'), imports('cli/c.ts', 'a')];
    assert.deepEqual(noFileImportsItself(cycle), ['cli/a.ts -> cli/b.ts -> cli/c.ts -> cli/a.ts']);
    const diamond = [
      imports('cli/a.ts', 'b', 'c'),
      imports('cli/b.ts', 'd'),
      imports('cli/c.ts', 'd'),
      imports('cli/d.ts'),
    ];
    assert.deepEqual(noFileImportsItself(diamond), []);
  });

  test('let pass what is allowed', () => {
    const fine = [
      scanText('control/balancer.ts', "import type { DataPlane } from '../dataplane/data-plane.js';"),
      scanText(
        'compose.ts',
        "import { createLogger } from './observe/logger.js';\nimport './admin/server.js';",
      ),
      scanText('observe/logger.ts', "const name: string = 'pino-pretty';\nawait import(name);"),
      scanText('selection/hasher.ts', "import xxhash from 'xxhash-wasm';"),
      scanText(
        'config/config-error.ts',
        'export class ConfigError extends BalancerError {}\nconst NONE: ReadonlySet<string> = new Set();',
      ),
      scanText(
        'flow/flow-table.ts',
        "import { setTimeout } from 'node:timers/promises';\nfunction f() { let x = 1; }",
      ),
    ];
    for (const rule of [everyFileHasAPlace, importsRunOneWay, restrictedModulesStayHome, syntaxIsPlain]) {
      assert.deepEqual(rule(fine), []);
    }
  });
});
