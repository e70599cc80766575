import { execFileSync } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CATALOGUE } from './catalogue.js';
import { measure } from './measure.js';
import type { Measurement } from './micro-bench.js';
import { formatTable } from './table.js';

const USAGE = `npm run bench:micro [-- [options] [word ...]]

Measures the hot functions whose name holds one of the words; all of them without a word.
  --list        only print the names
  --json        print JSON instead of a table
  --runs N      timed runs of each (default 9); the median counts
  --run-ms N    length of a run (default 100)
`;

const NODE_FLAGS = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    help: { type: 'boolean', short: 'h', default: false },
    list: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '9' },
    'run-ms': { type: 'string', default: '100' },
    /** Measures this one, in this process. */
    measure: { type: 'string' },
  },
});

const options = { runs: atLeastOne(values.runs), runMs: atLeastOne(values['run-ms']) };
const wanted = CATALOGUE.filter(
  ({ name }) => positionals.length === 0 || positionals.some((word) => name.includes(word)),
);
if (values.help) process.stdout.write(USAGE);
else if (values.measure !== undefined) await measureHere(values.measure);
else if (values.list) process.stdout.write(wanted.map(({ name }) => `${name}\n`).join(''));
else measureAll();

async function measureHere(name: string): Promise<void> {
  const bench = CATALOGUE.find((one) => one.name === name);
  if (bench === undefined) throw new RangeError(`No bench is called "${name}"`);
  process.stdout.write(JSON.stringify(await measure(bench, options)));
}

function measureAll(): void {
  const measurements: Measurement[] = [];
  for (const { name } of wanted) {
    if (process.stderr.isTTY) process.stderr.write(`${name}\n`);
    const script = fileURLToPath(import.meta.url);
    const args = [...NODE_FLAGS, script, '--measure', name];
    args.push('--runs', String(options.runs), '--run-ms', String(options.runMs));
    const output = execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 300_000 });
    measurements.push(JSON.parse(output) as Measurement);
  }
  const machine = { cpu: cpus()[0]?.model ?? '', node: process.version, date: new Date().toISOString() };
  if (values.json) process.stdout.write(`${JSON.stringify({ machine, measurements }, null, 2)}\n`);
  else process.stdout.write(`${machine.cpu}, Node ${machine.node}\n\n${formatTable(measurements)}`);
}

function atLeastOne(text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1) throw new RangeError(`"${text}" must be at least 1`);
  return number;
}
