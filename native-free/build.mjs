// Builds dist/ out of src/: the programs, and the page of the dashboard. Each program is a few files that hold its modules
// and those of the packages: loading three hundred files took longer than all that a short command does.
//   node native-free/build.mjs [--if-stale]
// With --if-stale only where dist/ is missing or older than a source, so that `npm start` works on a clean clone; an
// installed package has dist/ and no src/. Types are checked by `npm run typecheck`.
import { copyFileSync, existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const onlyIfStale = process.argv.includes('--if-stale');
const src = join(root, 'src');
const dist = join(root, 'dist');
/** Takes the place of dist/ when all is built: until then, and for good if the build fails, the last build stays usable. */
const next = join(root, 'dist.next');
/** Below src/ and dist/. */
const PAGE = join('admin', 'page');
const main = join(dist, 'main.js');
/** By their names in dist/. */
const PROGRAMS = {
  main: join(src, 'main.ts'),
  // Apart from main.js: test/corpus answers thousands of command lines by evaluating that again.
  commands: join(src, 'cli', 'program.ts'),
  worker: join(src, 'worker.ts'),
  'nva-main': join(src, 'demo', 'nva-main.ts'),
};
const PAGE_FILES = ['index.html', 'style.css'];

function isStale() {
  if (!existsSync(src)) return false;
  const outputs = [
    ...Object.keys(PROGRAMS).map((name) => `${name}.js`),
    ...PAGE_FILES.map((name) => join(PAGE, name)),
  ];
  if (outputs.some((path) => !existsSync(join(dist, path)))) return true;
  const builtMs = statSync(main).mtimeMs;
  const sources = readdirSync(src, { recursive: true, withFileTypes: true })
    .filter((item) => item.isFile())
    .map((item) => join(item.parentPath, item.name));
  const others = ['package-lock.json', 'tsconfig.json', 'native-free/build.mjs'].map((path) =>
    join(root, path),
  );
  return [...sources, ...others].some((path) => existsSync(path) && statSync(path).mtimeMs > builtMs);
}

async function build() {
  const rolldown = await import('rolldown').then(
    (bundler) => bundler.rolldown,
    () => undefined,
  );
  if (rolldown === undefined) {
    const state = existsSync(main) ? 'has sources newer than its build' : 'is not built';
    throw new Error(`haports ${state} and the bundler is not installed; run "npm ci" without --omit=dev`);
  }
  const write = async (inputOptions, outputOptions) => {
    const bundle = await rolldown({ cwd: root, ...inputOptions });
    await bundle.write({ format: 'esm', sourcemap: true, chunkFileNames: '[name].js', ...outputOptions });
  };
  await write(
    { input: { app: join(src, PAGE, 'app.tsx') }, platform: 'browser' },
    { dir: join(next, PAGE), sourcemap: false },
  );
  for (const file of PAGE_FILES) copyFileSync(join(src, PAGE, file), join(next, PAGE, file));
  copyFileSync(join(root, 'node_modules/uplot/dist/uPlot.min.css'), join(next, PAGE, 'uplot.css'));
  await write(
    {
      input: PROGRAMS,
      platform: 'node',
      // Where a package has modules as well as CommonJS, its modules: they are merged without a loader.
      resolve: { mainFields: ['module', 'main'] },
      // Optional: used where it is installed.
      external: ['pino-pretty'],
    },
    { dir: next },
  );
  rmSync(dist, { recursive: true, force: true });
  renameSync(next, dist);
}

if (!onlyIfStale || isStale()) {
  if (onlyIfStale) console.error('haports: building dist/ (only when something changed) ...');
  try {
    await build();
  } catch (error) {
    console.error(`haports: Cannot build: ${error.message}`);
    process.exitCode = 1;
  } finally {
    rmSync(next, { recursive: true, force: true });
  }
}
