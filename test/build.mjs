// Builds what tests and benchmarks run into build/, each file where its source is: build/test/unit/..., build/bench/...
// Run it in the folder of package.json. Types are checked by `npm run typecheck`.
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { rolldown } from 'rolldown';

const files = ['test', 'bench', 'tools'].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((path) => `${folder}/${path}`),
);
const tests = files.filter((path) => path.endsWith('.test.ts'));
/** What is started as a process of its own, and modules of src/ that a test gives to one. */
const programs = [
  ...files.filter((path) => /(?:[/-]main|-child)\.ts$/.test(path)),
  ...['runner/group', 'runner/reporter', 'corpus/run-many', 'corpus/record', 'corpus/make-flow-log'].map(
    (name) => `test/${name}.ts`,
  ),
  'tools/generate.ts',
  ...['planes/netfilter/tools', 'planes/workers/process', 'runtime/clock', 'runtime/machine'].map(
    (name) => `src/${name}.ts`,
  ),
];
const { devDependencies } = JSON.parse(readFileSync('package.json', 'utf8'));

async function build(paths, output) {
  const bundle = await rolldown({
    input: Object.fromEntries(paths.map((path) => [path.replace(/\.ts$/, ''), path])),
    platform: 'node',
    resolve: { mainFields: ['module', 'main'] },
    // Only what haports itself loads is merged with it.
    external: [...Object.keys(devDependencies), 'pino-pretty'].map((name) => new RegExp(`^${name}(?:/|$)`)),
  });
  await bundle.write({ dir: 'build', format: 'esm', sourcemap: true, ...output });
}

rmSync('build', { recursive: true, force: true });
// A test loads three files besides itself: most of them need most of src/, and each file costs more than what is in it.
await build(tests, {
  chunkFileNames: 'modules/[name].js',
  codeSplitting: {
    groups: [
      { name: 'packages', test: /node_modules/ },
      { name: 'haports', test: /\/src\// },
      { name: 'support', test: /\/test\/support\// },
    ],
  },
});
// A program loads no more than it needs.
await build(programs, { chunkFileNames: 'modules/programs/[name].js' });
