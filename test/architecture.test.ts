import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
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
} from './support/architecture-rules.js';
import type { Layout, Rule } from './support/architecture-rules.js';
import { scanFolder } from './support/source-scan.js';

/** What the userspace plane and its remote control agree on. */
const PLANE_CONTRACTS = [
  'dataplane/data-plane.ts',
  'dataplane/worker-plane.ts',
  'dataplane/listen-report.ts',
  'dataplane/hand-over.ts',
];

/*
 * The shape of src/, as a table. A part is a folder (`model/`) or a file (`compose.ts`); the longest match wins.
 * Imports run one way: a part may import itself and what stands to its right, in any form, types included.
 */
const MAY_IMPORT: Layout['mayImport'] = {
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
  'dataplane/listen-report.ts': ['model/', 'dataplane/data-plane.ts'],
  'dataplane/hand-over.ts': ['model/', 'dataplane/data-plane.ts'],
  'dataplane/worker-plane.ts': ['model/', 'dataplane/data-plane.ts', 'dataplane/hand-over.ts'],
  'dataplane/userspace/': ['model/', 'runtime/', 'selection/', 'flow/', ...PLANE_CONTRACTS],
  'dataplane/kernel/': ['model/', 'runtime/', 'selection/', 'flow/', 'nft/', 'dataplane/data-plane.ts'],
  'dataplane/remote/': ['model/', 'runtime/', ...PLANE_CONTRACTS],
  'dataplane/capture/': ['model/', 'runtime/', 'nft/', ...PLANE_CONTRACTS],

  // Control sees only the interface of a plane.
  'control/': [
    ...['model/', 'runtime/', 'config/', 'selection/', 'pool/', 'flow/', 'probe/'],
    ...['dataplane/data-plane.ts', 'dataplane/hand-over.ts'],
  ],

  // What people and scrapers look at. Only the composition root imports observe and admin.
  'observe/': ['model/', 'runtime/', 'dataplane/data-plane.ts'],
  'admin/': ['model/', 'runtime/', 'dataplane/data-plane.ts'],
  'demo/': ['model/', 'runtime/'],
  'cli/': [
    ...['model/', 'runtime/', 'config/', 'selection/', 'pool/', 'flow/', 'control/'],
    ...['dataplane/data-plane.ts', 'demo/', 'compose.ts'],
  ],

  // The composition root, and the entry points of the processes.
  'compose.ts': 'anything',
  'compose-': 'anything',
  'main.ts': 'anything',
  'worker.ts': 'anything',
};

/** Node's modules and packages that only these parts may import. Other modules of Node are free, except to model. */
const ONLY_IN: Layout['onlyIn'] = {
  'node:net': [
    'dataplane/userspace/',
    'dataplane/capture/instance-lock.ts',
    'probe/',
    'admin/',
    'cli/',
    'demo/',
  ],
  'node:dgram': ['dataplane/userspace/', 'demo/'],
  'node:tls': ['probe/', 'admin/'],
  'node:http': ['probe/', 'admin/', 'cli/', 'demo/', 'observe/webhook-post.ts'],
  'node:https': ['probe/', 'admin/', 'cli/', 'demo/', 'observe/webhook-post.ts'],
  'node:http2': [],
  // systemd is told through its own program: Node has no datagram sockets of AF_UNIX.
  'node:child_process': [
    ...['nft/runner.ts', 'dataplane/remote/worker-launcher.ts', 'demo/'],
    ...['runtime/systemd-notify.ts', 'runtime/peer-process.ts'],
  ],
  'node:cluster': ['dataplane/remote/worker-launcher.ts'],
  'node:worker_threads': [],
  'node:fs': ['runtime/files.ts', 'runtime/append-file.ts'],
  'node:fs/promises': ['runtime/files.ts', 'runtime/append-file.ts', 'runtime/socket-files.ts'],
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
  test('has no file above 300 lines', () => assertHolds(filesAreShort));
  test('has no enum, namespace, default or star export, inheritance beyond Error, or module-level state', () =>
    assertHolds(syntaxIsPlain));
});

describe('src/README.md', () => {
  const readme = readFileSync('src/README.md', 'utf8');

  test('names only files and folders that exist', () => {
    const named = [...readme.matchAll(/^\|.*$/gm)].flatMap(([row]) => [
      ...row.matchAll(/`([a-z][^`\s]*[/.][^`\s]*)`/g),
    ]);
    assert.ok(named.length > 20);
    assert.deepEqual(
      named.map(([, path]) => path ?? '').filter((path) => !existsSync(join('src', path))),
      [],
    );
  });

  test('names every folder', () => {
    const folders = new Set(
      sources.map((file) => file.path.split('/').slice(0, -1).join('/')).filter(Boolean),
    );
    assert.deepEqual(
      [...folders]
        .map((folder) => folder.split('/').slice(0, 2).join('/'))
        .filter((folder) => !readme.includes(folder)),
      [],
    );
  });
});
