import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { builtFile } from '../support/commands.js';
import { offlineCorpus, type Case } from './cases.js';
import { observe, type Answer, type Observation } from './observe.js';
import type { Wanted } from './recorded.js';

const RUN_MANY = builtFile('test/corpus/run-many');
const BATCHES = 2;

export interface MeasureOptions {
  /** Path of the main.js that is asked. */
  readonly main: string;
  /** A process for each command line, as a shell has it. @default false: many in one process */
  readonly isolated?: boolean;
}

/** Asks a build every wanted command line that needs no running process. */
export async function measureOffline(
  { main, isolated = false }: MeasureOptions,
  wanted: Wanted,
): Promise<Map<string, Observation>> {
  const { cases, files } = offlineCorpus();
  const asked = cases.filter(({ id }) => wanted(id));
  const folder = await mkdtemp(join(tmpdir(), 'haports-corpus-'));
  try {
    for (const [path, text] of files) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    const step = isolated ? 1 : Math.ceil(asked.length / BATCHES);
    const batches: Case[][] = [];
    for (let start = 0; start < asked.length; start += step) batches.push(asked.slice(start, start + step));
    const observed = new Map<string, Observation>();
    const take = async (): Promise<void> => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        const run = isolated ? runOne : runBatch;
        const answers = await run(resolve(main), folder, batch);
        for (const [index, { id, view }] of batch.entries()) {
          const answer = answers[index];
          if (answer === undefined) throw new Error(`no answer to ${id}`);
          observed.set(id, observe(view, withoutFolder(answer, folder)));
        }
      }
    };
    await Promise.all(Array.from({ length: BATCHES }, take));
    return observed;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What is said of files holds their whole path. */
function withoutFolder({ exitCode, stdout, stderr }: Answer, folder: string): Answer {
  return { exitCode, stdout: stdout.replaceAll(folder, ''), stderr: stderr.replaceAll(folder, '') };
}

async function runOne(main: string, folder: string, [one]: readonly Case[]): Promise<Answer[]> {
  return one === undefined ? [] : [await runNode([main, ...one.args], folder, '')];
}

async function runBatch(main: string, folder: string, batch: readonly Case[]): Promise<Answer[]> {
  const input = JSON.stringify(batch.map(({ args }) => args));
  const { stdout, stderr, exitCode } = await runNode([RUN_MANY, main], folder, input);
  if (exitCode !== 0) throw new Error(`${main} failed with ${exitCode}:\n${stdout.slice(-500)}\n${stderr}`);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Answer);
}

/** Runs Node to its end, killed after two minutes. */
async function runNode(args: readonly string[], cwd: string, input: string): Promise<Answer> {
  // Neither the socket of a process that runs here nor a terminal's width may show.
  const env = { PATH: process.env['PATH'], HOME: cwd, LC_ALL: 'C', TZ: 'UTC', NO_COLOR: '1', COLUMNS: '100' };
  const child = spawn(process.execPath, args, { cwd, env, stdio: 'pipe', timeout: 120_000 });
  const written = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (written[name] += text));
  }
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const exitCode = await new Promise<number | null>((done, fail) =>
    child.once('error', fail).once('close', done),
  );
  return { exitCode, ...written };
}
