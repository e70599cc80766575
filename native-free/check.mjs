// Proves that what `npm ci --omit=dev` installs holds no native code and nothing that nobody allowed.
//   node native-free/check.mjs [project folder]
// Prints one line per finding and a closing count; exit code 1 if there is any. Node's own modules only, so that
// the check cannot be led astray by the packages it checks. The rules and their reasons: native-free/README.md.
import { closeSync, existsSync, openSync, readFileSync, readSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall'];
const NATIVE_NAMES = [
  [/\.node$/, 'is a native addon'],
  [/^binding\.gyp$/, 'makes npm compile native code at install'],
  [/^prebuilds$/, 'is a folder of prebuilt native addons'],
  [/\.(?:so|dylib|dll)(?:\.\d+)*$/, 'is a native library'],
];
// First bytes, hex: ELF; Mach-O 32 and 64 bit, either byte order (a universal Mach-O shares its bytes with Java).
const NATIVE_MAGIC = /^(?:7f454c46|feedfac[ef]|c[ef]faedfe|cafebabe)/;
const WASM_MAGIC = /^0061736d/;

/** Every finding in the project at `root`, and how many packages and files were looked at. */
function check(root) {
  const manifest = readJson(join(root, 'package.json'));
  const lock = readJson(join(root, 'package-lock.json'));
  const allowed = readJson(join(root, 'native-free', 'allow-list.json')).packages;
  const { tree, unresolved } = runTimeTree(lock.packages);
  const findings = [...unresolved, ...scriptFindings('the project itself', manifest)];
  if (existsSync(join(root, 'binding.gyp'))) findings.push('the project itself: binding.gyp is native code');

  let files = 0;
  for (const [path, { entry }] of tree) {
    if (entry.hasInstallScript === true)
      findings.push(`${path}: the lock says that it has an install script`);
    if (entry.link === true) findings.push(`${path}: is a link out of the tree`);
    const folder = join(root, path);
    if (!existsSync(join(folder, 'package.json'))) {
      // An optional package may be left out (npm ci --omit=optional); any other must be there to be looked at.
      if (entry.optional !== true) findings.push(`${path}: is not on disk, run "npm ci" first`);
      continue;
    }
    const installed = readJson(join(folder, 'package.json'));
    if (installed.version !== entry.version) {
      findings.push(`${path}: version on disk is "${installed.version}", the lock says "${entry.version}"`);
    }
    if (installed.gypfile === true) findings.push(`${path}: package.json says "gypfile": true`);
    findings.push(...scriptFindings(path, installed));
    const wasm = allowed[nameOf(path)]?.wasm !== undefined;
    files += scanFolder(folder, path, { tree, wasm }, findings);
  }
  findings.push(...allowListFindings(allowed, tree));
  return { findings, packages: tree.size, files };
}

/**
 * The packages that run: what the project's dependencies and optional dependencies reach, resolved as Node resolves
 * (nearest node_modules upwards). The lock's own `dev` flags are not trusted.
 */
function runTimeTree(locked) {
  const tree = new Map();
  const unresolved = [];
  const queue = [['', locked['']]];
  for (const [path, entry] of queue) {
    const wanted = [
      ...Object.keys(entry.dependencies ?? {}).map((name) => [name, true]),
      ...Object.keys(entry.optionalDependencies ?? {}).map((name) => [name, false]),
      ...Object.keys(entry.peerDependencies ?? {}).map((name) => [
        name,
        entry.peerDependenciesMeta?.[name]?.optional !== true,
      ]),
    ];
    for (const [name, required] of wanted) {
      const found = resolveFrom(path, name, locked);
      if (found === undefined) {
        if (required)
          unresolved.push(`${path || 'the project itself'}: needs "${name}", which the lock lacks`);
        continue;
      }
      const known = tree.get(found);
      if (known !== undefined) {
        known.neededBy.add(path);
      } else {
        tree.set(found, { entry: locked[found], neededBy: new Set([path]) });
        queue.push([found, locked[found]]);
      }
    }
  }
  return { tree, unresolved };
}

function resolveFrom(path, name, locked) {
  for (let at = path; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
    const candidate = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
    if (locked[candidate] !== undefined) return candidate;
    if (at === '') return undefined;
  }
}

/** Looks at every file and folder of a package, packages nested in it excepted if they are in the tree themselves. */
function scanFolder(folder, shown, context, findings) {
  let files = 0;
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, item.name);
    const label = `${shown}/${item.name}`;
    for (const [pattern, why] of NATIVE_NAMES) {
      if (pattern.test(item.name)) findings.push(`${label}: ${why}`);
    }
    if (item.isDirectory()) {
      if (!context.tree.has(label)) files += scanFolder(path, label, context, findings);
    } else if (item.isFile()) {
      files += 1;
      const start = firstBytes(path);
      if (NATIVE_MAGIC.test(start)) findings.push(`${label}: holds machine code, whatever its name says`);
      if (WASM_MAGIC.test(start) && !context.wasm) {
        findings.push(`${label}: is WebAssembly, which the allow-list does not grant this package`);
      }
    }
  }
  return files;
}

function scriptFindings(label, manifest) {
  return INSTALL_SCRIPTS.filter((script) => manifest.scripts?.[script] !== undefined).map(
    (script) => `${label}: package.json has a script "${script}"`,
  );
}

function allowListFindings(allowed, tree) {
  const findings = [];
  const neededBy = new Map();
  for (const [path, node] of tree) {
    const names = neededBy.get(nameOf(path)) ?? new Set();
    for (const parent of node.neededBy) names.add(parent === '' ? 'haports' : nameOf(parent));
    neededBy.set(nameOf(path), names);
  }
  for (const [name, parents] of neededBy) {
    const needed = [...parents].sort().join(', ');
    const entry = allowed[name];
    if (entry === undefined) {
      findings.push(`${name}: is not on the allow-list (needed by ${needed})`);
      continue;
    }
    if (typeof entry.why !== 'string' || entry.why === '')
      findings.push(`${name}: is allowed without a reason`);
    const listed = [...(entry.neededBy ?? [])].sort().join(', ');
    if (listed !== needed) {
      findings.push(`${name}: the allow-list says needed by "${listed}", the lock says "${needed}"`);
    }
  }
  for (const name of Object.keys(allowed)) {
    if (!neededBy.has(name))
      findings.push(`${name}: is on the allow-list, but no longer in the run-time tree`);
  }
  return findings;
}

function nameOf(path) {
  return path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
}

function firstBytes(path) {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(4);
    return bytes.subarray(0, readSync(file, bytes)).toString('hex');
  } finally {
    closeSync(file);
  }
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

const root = resolve(process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..'));
try {
  const { findings, packages, files } = check(root);
  for (const finding of findings) console.log(`native-free: ${finding}`);
  console.log(`native-free: ${packages} run-time packages, ${files} files, ${findings.length} findings`);
  if (findings.length > 0) process.exitCode = 1;
} catch (error) {
  console.log(`native-free: cannot check "${root}": ${error.message}`);
  process.exitCode = 1;
}
