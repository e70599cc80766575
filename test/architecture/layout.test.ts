import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
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
import { scanFolder } from './source-scan.js';

const PURE = ['model/', 'runtime/'];
const PLANE_PARTS = [...PURE, 'selection/', 'flows/', 'planes/contract.ts'];

/*
 * The shape of src/, as a table. A part is a folder (`model/`) or a file (`planes/contract.ts`); the longest match wins.
 * Imports run one way: a part may import itself and what stands to its right, in any form, types included.
 */
const MAY_IMPORT: Layout['mayImport'] = {
  'model/': [],
  'runtime/': ['model/'],

  'config/': PURE,
  'selection/': [...PURE, 'api/'],
  'flows/': PURE,
  'health/': PURE,
  'api/': ['model/'],

  // Planes know neither the configuration's text, nor who controls them, nor each other.
  'planes/contract.ts': ['model/', 'flows/'],
  'planes/netfilter/': PURE,
  'planes/userspace/': PLANE_PARTS,
  'planes/kernel/': [...PLANE_PARTS, 'planes/netfilter/'],
  'planes/capture/': [...PURE, 'selection/', 'planes/netfilter/', 'planes/contract.ts'],
  'planes/workers/': PLANE_PARTS,

  // Control sees only the contract of a plane.
  'whatif/': [...PURE, 'config/', 'selection/', 'flows/', 'health/', 'api/'],
  'control/': [...PURE, 'config/', 'selection/', 'health/', 'whatif/', 'api/', 'planes/contract.ts'],
  'status/': [...PURE, 'selection/', 'flows/', 'health/', 'control/', 'api/', 'planes/contract.ts'],
  'monitors/': [...PURE, 'flows/', 'planes/contract.ts'],
  'doctor/': PURE,
  'upgrade/': [...PURE, 'health/', 'control/', 'planes/contract.ts'],

  // What people and scrapers look at. Only the composition root imports observe and admin.
  'observe/': [...PURE, 'flows/', 'api/', 'planes/contract.ts'],
  'admin/': [...PURE, 'api/', 'planes/contract.ts'],
  // Runs in a browser: of api/ the types, and the modules that go into the page too (client, words).
  'admin/page/': ['api/'],
  'demo/': PURE,
  'cli/': [...PURE, 'api/', 'config/', 'selection/', 'whatif/', 'status/', 'doctor/', 'demo/'],

  // The composition root, and the entry points of the processes.
  'app/': 'anything',
  'main.ts': 'anything',
  'worker.ts': 'anything',
};

/** Node's modules and packages that only these parts may import. Other modules of Node are free, except to model. */
const ONLY_IN: Layout['onlyIn'] = {
  'node:net': [
    ...[
      'planes/userspace/sockets/',
      'planes/netfilter/instance-lock.ts',
      'health/',
      'admin/',
      'cli/',
      'demo/',
    ],
  ],
  'node:dgram': ['planes/userspace/sockets/', 'planes/userspace/source-address.ts', 'demo/'],
  'node:tls': ['health/', 'admin/'],
  'node:http': ['health/', 'admin/', 'cli/', 'demo/', 'observe/webhook.ts'],
  'node:https': ['health/', 'admin/', 'cli/', 'demo/', 'observe/webhook.ts'],
  'node:http2': [],
  // systemd is told through its own program: Node has no datagram sockets of AF_UNIX.
  'node:child_process': [
    ...['planes/netfilter/tools.ts', 'planes/workers/process.ts', 'demo/'],
    ...['runtime/systemd.ts', 'runtime/peer.ts'],
  ],
  'node:cluster': ['planes/workers/process.ts'],
  'node:worker_threads': [],
  'node:fs': ['runtime/files.ts'],
  'node:fs/promises': ['runtime/files.ts'],
  'node:module': [],
  'node:vm': [],

  '@hono/node-server': ['admin/'],
  commander: ['cli/'],
  hono: ['admin/'],
  htm: ['admin/page/'],
  'ipaddr.js': ['model/'],
  'jsonc-parser': ['config/'],
  pino: ['observe/'],
  'pino-pretty': ['observe/'],
  'prom-client': ['observe/'],
  uplot: ['admin/page/'],
  'xxhash-wasm': ['selection/flow-hash.ts'],
  // One contract a thing: the configuration, the admin API, the flow log.
  zod: ['config/', 'api/'],
};

const sources = scanFolder(join(process.cwd(), 'src'));

function assertHolds(rule: Rule): void {
  assert.ok(sources.length > 10, 'src/ is there');
  const findings = rule(sources, { mayImport: MAY_IMPORT, onlyIn: ONLY_IN });
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
  test('has no file above 900 lines', () => assertHolds(filesAreShort));
  test('has no enum, namespace, default or star export, inheritance beyond Error, or module-level state', () =>
    assertHolds(syntaxIsPlain));
});

describe('src/README.md', () => {
  const readme = readFileSync('src/README.md', 'utf8');

  test('names every folder', () => {
    const folders = new Set(
      sources.map((file) => file.path.split('/').slice(0, -1).join('/')).filter(Boolean),
    );
    assert.deepEqual(
      [...folders].map((folder) => folder.split('/')[0] ?? '').filter((folder) => !readme.includes(folder)),
      [],
    );
  });
});
