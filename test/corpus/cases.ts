import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONFIGURATIONS, EXPLAINED, patched, PLANS, RULESETS, SIMULATIONS } from './configurations.js';
import type { View } from './observe.js';

/** A command line whose answer is recorded. */
export interface Case {
  /** `check/azure-017`: the class before the slash is the file that it is recorded in. */
  readonly id: string;
  readonly args: readonly string[];
  readonly view: View;
}

export interface Corpus {
  readonly cases: readonly Case[];
  /** Path below the working directory to text: what the command lines name. */
  readonly files: ReadonlyMap<string, string>;
}

type Json = Record<string, unknown>;

export const CORPUS = join('test', 'corpus');

/** Every offline case. A configuration of `cases/check.jsonl` is checked; those of configurations.ts also explained, planned ... */
export function offlineCorpus(): Corpus {
  const files = new Map<string, string>();
  const cases: Case[] = [];
  const json = (id: string, args: readonly string[]) => cases.push({ id, args, view: 'json' });
  const words = (id: string, args: readonly string[]) => cases.push({ id, args, view: 'words' });
  // Texts for people have one form for all configurations: some of each kind do.
  let kinds = 0;
  const someWords = (id: string, args: readonly string[]) => kinds++ % 5 === 0 && words(id, args);
  for (const name of readdirSync(join(CORPUS, 'cases', 'tls'))) {
    files.set(`tls/${name}`, readFileSync(join(CORPUS, 'cases', 'tls', name), 'utf8'));
  }
  for (const [name, text] of checkedConfigurations()) {
    files.set(`${name}.json`, text);
    json(`check/${name}`, ['check', '-c', `${name}.json`, '--json']);
  }
  for (const [name, configuration] of Object.entries(CONFIGURATIONS)) {
    files.set(`${name}.json`, JSON.stringify(configuration, undefined, 2));
    json(`check/with-${name}`, ['check', '-c', `${name}.json`, '--json']);
    someWords(`words/check-${name}`, ['check', '-c', `${name}.json`]);
  }
  for (const { configuration, flow, down } of EXPLAINED) {
    const args = ['explain', '-c', `${configuration}.json`, ...flow.split(' ')];
    const supposed = (down ?? []).flatMap((backend) => ['--down', backend]);
    const name = [configuration, flow, ...(down ?? []).map((backend) => `without ${backend}`)].join(' ');
    json(`explain/${name}`, [...args, ...supposed, '--json']);
    someWords(`words/explain ${name}`, [...args, ...supposed]);
  }
  for (const { before, after } of PLANS) {
    const args = ['plan', `${after}.json`, '--against', `${before}.json`];
    json(`plan/${before} to ${after}`, [...args, '--json', '--max-moved', '25%']);
    someWords(`words/plan ${before} to ${after}`, args);
  }
  for (const { configuration, suppose } of SIMULATIONS) {
    const args = ['simulate', '--offline', `${configuration}.json`, ...suppose.split(' ').filter(Boolean)];
    json(`simulate/${configuration} ${suppose}`, [...args, '--flows', '4000', '--json']);
    someWords(`words/simulate ${configuration} ${suppose}`, [...args, '--flows', '200']);
  }
  for (const name of RULESETS) {
    const args = ['kernel', 'ruleset', '-c', `${name}.json`];
    cases.push({ id: `ruleset/${name}`, args: [...args, '--full'], view: 'ruleset' });
    words(`words/ruleset ${name}`, args);
  }
  for (const [log, text] of flowLogs()) {
    files.set(log, text);
    json(`replay/${log}`, ['replay', log, '--json']);
    words(`words/replay ${log}`, ['replay', log]);
    json(`replay/simulate ${log}`, ['simulate', '--flow-log', log, '--down', 'nvas/nva-1', '--json']);
  }
  for (const args of BAD_COMMAND_LINES) words(`usage/${args}`, args.split(' '));
  json('schema/schema', ['schema']);
  for (const command of COMMANDS) words(`words/help ${command}`, [...command.split(' '), '--help']);
  return { cases, files };
}

const COMMANDS =
  'run check schema explain demo status backends flows top drain admin-state weight reload upgrade events plan simulate replay kernel doctor completion'.split(
    ' ',
  );

const BAD_COMMAND_LINES = [
  'fly',
  'chek',
  'run --fast',
  'run -c',
  'run -c none.json',
  'run -c azure-001',
  'check extra',
  'check -c none.json',
  'check -c tls',
  'explain tcp',
  'explain icmp 192.0.2.7:1 10.0.0.1:80 -c five-tuple.json',
  'explain tcp 192.0.2.7 10.0.0.1:80 -c five-tuple.json',
  'explain tcp 192.0.2.7:0 10.0.0.1:80 -c five-tuple.json',
  'explain tcp 192.0.2.7:1 hub:80 -c five-tuple.json',
  'explain tcp 192.0.2.7:1 10.0.0.1:70000 -c five-tuple.json',
  'explain tcp 192.0.2.7:1 [::1]:80 -c five-tuple.json',
  'explain tcp 192.0.2.7:1 10.0.0.1:80 -c five-tuple.json --down nva-1',
  'explain tcp 192.0.2.7:1 10.0.0.1:80 -c bad-input-002.json',
  'plan none.json --against five-tuple.json',
  'plan five-tuple.json --against none.json',
  'plan bad-input-002.json --against five-tuple.json',
  'plan five-tuple.json --against bad-input-002.json',
  'plan five-tuple.json --against seed-1.json --max-moved 2%',
  'plan five-tuple.json --against five-tuple.json --max-moved 0%',
  'plan five-tuple.json --max-moved much',
  'simulate --offline none.json',
  'simulate --offline five-tuple.json --down nvas/none',
  'simulate --offline five-tuple.json --live',
  'simulate --offline five-tuple.json --weight nvas/nva-1=300',
  'simulate --offline five-tuple.json --weight nvas/nva-1',
  'simulate --offline five-tuple.json --admin-state nvas/nva-1=sideways',
  'simulate --offline five-tuple.json --flows 0',
  'simulate --offline five-tuple.json --flows 1000001',
  'simulate --offline five-tuple.json --seed -1',
  'simulate --flow-log none.jsonl',
  'replay none.jsonl',
  'replay five-tuple.json',
  'kernel',
  'kernel rules',
  'kernel ruleset -c five-tuple.json',
  'kernel ruleset -c none.json',
  'kernel flush --instance Bad_Name',
  'status --socket none.sock',
  'flows --socket none.sock --limit 0',
  'drain --socket none.sock nvas/nva-1',
  'weight --socket none.sock nvas/nva-1 300',
  'admin-state --socket none.sock nvas/nva-1 sideways',
  'reload --socket none.sock -c none.json',
  'completion fihs',
];

/** Those of `cases/flow-logs`, and each altered: other backends, a torn line, no configuration to begin with. */
function flowLogs(): [string, string][] {
  const folder = join(CORPUS, 'cases', 'flow-logs');
  return readdirSync(folder).flatMap((name): [string, string][] => {
    const text = readFileSync(join(folder, name), 'utf8');
    const lines = text.split('\n');
    const altered = lines.map((line, index) =>
      index % 9 === 8 ? line.replace(/"backend":"[^"]*"/, '"backend":"nvas/127.77.9.11"') : line,
    );
    return [
      [name, text],
      [`altered-${name}`, altered.join('\n')],
      [`torn-${name}`, text.slice(0, text.length * 0.7)],
      [`headless-${name}`, lines.slice(1).join('\n')],
    ];
  });
}

/** Name to text, of `cases/check.jsonl`: lines of name, base and what is set (`path`) or removed (`-path`) in it. */
function checkedConfigurations(): Map<string, string> {
  const bases = new Map<string, Json>();
  const texts = new Map<string, string>();
  for (const line of readFileSync(join(CORPUS, 'cases', 'check.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')) {
    const [name, base, content] = JSON.parse(line) as [string, string, Json | string];
    if (base === 'base') bases.set(name, content as Json);
    else if (base === 'text') texts.set(name, content as string);
    else texts.set(name, JSON.stringify(patched(bases.get(base), content as Json), undefined, 2));
  }
  return texts;
}
