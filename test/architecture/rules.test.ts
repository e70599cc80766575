import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  everyFileHasAPlace,
  filesAreShort,
  importsRunOneWay,
  namesAreTelling,
  noFileImportsItself,
  relativeImportsNameAFile,
  restrictedModulesStayHome,
  syntaxIsPlain,
} from './rules.js';
import type { Layout, Rule } from './rules.js';
import { scanText } from './source-scan.js';
import type { SourceFile } from './source-scan.js';

/** Small, and in the shape of the real one. */
const layout: Layout = {
  mayImport: {
    'model/': [],
    'runtime/': ['model/'],
    'config/': ['model/', 'runtime/'],
    'selection/': ['model/'],
    'flow/': ['model/'],
    'observe/': ['model/'],
    'admin/': ['model/'],
    'cli/': ['model/', 'compose.ts'],
    'control/': ['model/', 'dataplane/data-plane.ts'],
    'dataplane/data-plane.ts': ['model/'],
    'dataplane/userspace/': ['model/', 'dataplane/data-plane.ts'],
    'dataplane/kernel/': ['model/', 'dataplane/data-plane.ts'],
    'compose.ts': 'anything',
  },
  onlyIn: {
    'node:net': ['dataplane/userspace/', 'cli/'],
    'node:fs/promises': ['runtime/files.ts'],
    'node:worker_threads': [],
    hono: ['admin/'],
    pino: ['observe/'],
    'pino-pretty': ['observe/'],
    'xxhash-wasm': ['selection/hasher.ts'],
  },
};

describe('the rules of the architecture', () => {
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
          'import model/ dataplane/data-plane.ts',
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
      ['config/load.ts:1 imports node:fs/promises: only runtime/files.ts may'],
    ],
    ['net in flow', restrictedModulesStayHome, 'flow/a.ts', "import type { Socket } from 'node:net';", []],
    ['what nobody may import', restrictedModulesStayHome, 'cli/a.ts', "import 'node:worker_threads';", []],
    ['net in control', restrictedModulesStayHome, 'control/a.ts', "export { connect } from 'node:net';", []],
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
      '901 lines',
      filesAreShort,
      'cli/a.ts',
      'x;\n'.repeat(901),
      ['cli/a.ts has 901 lines, 900 is the limit'],
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
      const findings = rule([scanText(path, text)], layout);
      if (expected.length > 0) assert.deepEqual(findings, expected);
      else assert.equal(findings.length, 1, findings.join('; '));
    });
  }

  test('find a cycle over three files, and call a diamond none', () => {
    const imports = (path: string, ...names: readonly string[]): SourceFile =>
      scanText(path, names.map((name) => `import './${name}.js';`).join('\n'));
    const cycle = [imports('cli/a.ts', 'b'), imports('cli/b.ts', 'c'), imports('cli/c.ts', 'a')];
    assert.deepEqual(noFileImportsItself(cycle, layout), ['cli/a.ts -> cli/b.ts -> cli/c.ts -> cli/a.ts']);
    const diamond = [
      imports('cli/a.ts', 'b', 'c'),
      imports('cli/b.ts', 'd'),
      imports('cli/c.ts', 'd'),
      imports('cli/d.ts'),
    ];
    assert.deepEqual(noFileImportsItself(diamond, layout), []);
  });

  test('let pass what is allowed', () => {
    const fine = [
      scanText('control/balancer.ts', "import type { DataPlane } from '../dataplane/data-plane.js';"),
      scanText(
        'compose.ts',
        "import { createLogger } from './observe/logger.js';\nimport './admin/server.js';",
      ),
      scanText('observe/logger.ts', "const name = 'pino-pretty' as string;\nawait import(name);"),
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
      assert.deepEqual(rule(fine, layout), []);
    }
  });
});
