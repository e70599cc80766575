// Compiles src/ where dist/ is missing or older, so that `npm start` works on a clean clone.
//   node native-free/build-if-missing.mjs [project folder]
// Does nothing where there is nothing to compile (an installed package has dist/ and no src/).
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..'));
const buildInfo = join(root, 'dist', '.tsbuildinfo');
/** Below src/ and dist/: compiled by itself, with the types of a browser. */
const PAGE = join('admin', 'page');

/** Why a build is needed, or undefined. */
function staleness() {
  const src = join(root, 'src');
  if (!existsSync(src)) return undefined;
  if (!existsSync(buildInfo)) return { missing: true };
  const builtMs = statSync(buildInfo).mtimeMs;
  let older = ['tsconfig.json', join('src', PAGE, 'tsconfig.json'), 'package-lock.json'].some((name) =>
    changedAfter(join(root, name), builtMs),
  );
  for (const item of readdirSync(src, { recursive: true, withFileTypes: true })) {
    const source = join(item.parentPath, item.name);
    if (!item.isFile() || !/\.(tsx?|html|css)$/.test(item.name)) continue;
    const output = join(root, 'dist', relative(src, source).replace(/\.tsx?$/, '.js'));
    if (!item.name.endsWith('.d.ts') && !existsSync(output)) return { missing: true };
    older ||= changedAfter(source, builtMs);
  }
  return older ? { missing: false } : undefined;
}

function changedAfter(path, timeMs) {
  return existsSync(path) && statSync(path).mtimeMs > timeMs;
}

function fail(message) {
  console.error(`haports: ${message}`);
  process.exitCode = 1;
}

function build({ missing }) {
  const compiler = join(root, 'node_modules', 'typescript-7', 'bin', 'tsc');
  if (!existsSync(compiler)) {
    const state = missing ? 'is not built' : 'has sources newer than its build';
    fail(`Cannot start: haports ${state} and the compiler is not installed; run "npm ci" without --omit=dev`);
    return;
  }
  console.error('haports: compiling src/ (only when something changed) ...');
  // An incremental compiler believes its notes, not the disk: without them it writes every file again.
  if (missing) rmSync(buildInfo, { force: true });
  const started = new Date();
  const page = join(root, 'src', PAGE);
  const projects = [join(root, 'tsconfig.json'), page].filter((project) => existsSync(project));
  let outcome;
  for (const project of projects) {
    outcome = spawnSync(process.execPath, [compiler, '-p', project], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    if (outcome.status !== 0) break;
  }
  const { status, error } = outcome;
  if (error === undefined && status === 0) {
    copyAsTheyAre(page, join(root, 'dist', PAGE));
    // The compiler leaves its notes alone when nothing but a time stamp changed: so they get the time of this build.
    utimesSync(buildInfo, started, started);
    return;
  }
  // Files are written even where types are wrong: the next start must not take them for a build.
  rmSync(buildInfo, { force: true });
  fail(
    error === undefined
      ? 'Cannot start: src/ does not compile, see above'
      : `Cannot compile: ${error.message}`,
  );
}

function copyAsTheyAre(from, to) {
  if (!existsSync(from)) return;
  for (const name of readdirSync(from)) {
    if (/\.(html|css)$/.test(name)) cpSync(join(from, name), join(to, name));
  }
}

const stale = staleness();
if (stale !== undefined) build(stale);
