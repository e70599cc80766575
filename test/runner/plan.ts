import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';

/** Test files that share one process, and what that process is called in the output. */
export interface Group {
  readonly name: string;
  /** Paths below the tests' root, as `unit/flow/table.test.js`. */
  readonly files: readonly string[];
}

/** What the command line of the runner asks for. */
export interface Selection {
  /** A file runs if its path holds one of them; all run if there is none. */
  readonly parts: readonly string[];
  /** Unit tests, property tests and scenarios: `npm run test:quick`. */
  readonly quick: boolean;
  /** Campaigns run whole instead of a seeded share: `npm run test:long`. */
  readonly long: boolean;
  /** Only tests whose name matches this regular expression. */
  readonly name: string | undefined;
  /** Test processes at a time: two more than there are processors, since most tests wait for something. */
  readonly concurrency: number;
  /** Decides which share of each campaign runs. */
  readonly seed: number;
}

/**
 * The arguments after `sh test/run.sh`: `--quick`, `--long`, `--name=<regular expression>`, and parts of paths. A path
 * of a source file will do: `test/unit/flow/table.test.ts` means `unit/flow/table.test`.
 *
 * @throws Error about an option that does not exist
 */
export function parseSelection(args: readonly string[], env: Readonly<NodeJS.ProcessEnv>): Selection {
  const options = args.filter((arg) => arg.startsWith('--'));
  const unknown = options.find((option) => !/^--(quick|long|name=.+)$/.test(option));
  if (unknown !== undefined) {
    throw new Error(`Unknown option "${unknown}": there are --quick, --long and --name=<regular expression>`);
  }
  return {
    parts: args
      .filter((arg) => !arg.startsWith('--'))
      .map((arg) => arg.replace(/^(?:\.\/)?(?:build\/)?test\//, '').replace(/\.[jt]s$/, '')),
    quick: options.includes('--quick'),
    long: options.includes('--long'),
    name: options.find((option) => option.startsWith('--name='))?.slice('--name='.length),
    concurrency: Number(env['TEST_CONCURRENCY'] ?? availableParallelism() + 2),
    seed: Number(env['TEST_SEED'] ?? randomInt(1_000_000)),
  };
}

/** The folders whose tests start processes, and so may take long: a process a file. */
const SLOW = /^(?:integration|kernel|conformance\/kernel|corpus)/;

/** Those that take longest come first, so that nothing is left to wait for in the end. */
const LONGEST =
  /^(?:small folders|conformance|integration\/(?:all-ports-bind|dashboard-page)|kernel\/(?:capture|flows-mirror))/;

/** The folders of `npm run test:quick`. */
const QUICK = /^(?:unit|property|scenarios)\//;

/** Folders with fewer tests share one process: to load what they need takes longer than to run them. */
const SMALL_FILES = 7;

/**
 * The processes to start, in order. Tests of `unit/<folder>` share a process, and so do those of any other folder that
 * start none themselves; all small folders of the quick run share one.
 */
export function planGroups(files: readonly string[], { parts, quick }: Selection): readonly Group[] {
  const chosen = files
    .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)))
    .filter((file) => !quick || QUICK.test(file));
  const groups = new Map<string, string[]>();
  for (const file of chosen.toSorted()) {
    const name = groupOf(file);
    groups.set(name, [...(groups.get(name) ?? []), file]);
  }
  const small = [...groups].filter(
    ([name, members]) => QUICK.test(`${name}/`) && members.length < SMALL_FILES,
  );
  if (small.length > 1) {
    for (const [name] of small) groups.delete(name);
    groups.set(
      'small folders',
      small.flatMap(([, members]) => members),
    );
  }
  return [...groups]
    .map(([name, members]) => ({ name, files: members }))
    .toSorted((a, b) => rank(a) - rank(b) || b.files.length - a.files.length);
}

function groupOf(file: string): string {
  if (SLOW.test(file)) return file.replace(/\.test\.js$/, '');
  const [top = '', folder, below] = file.split('/');
  if (folder === undefined) return 'architecture';
  return below === undefined ? top : `${top}/${folder}`;
}

function rank({ name }: Group): number {
  if (LONGEST.test(name)) return 0;
  return SLOW.test(name) ? 1 : 2;
}
