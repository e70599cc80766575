import type { Command } from 'commander';
import { ROUTES, readFields, type Request } from '../api/contract.js';
import type { Candidate, Explanation } from '../api/views.js';
import * as words from '../api/words.js';
import type { FiveTuple } from '../model/address.js';
import { findBackend } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { explain as explainFlow } from '../selection/explain.js';
import { clientFor, configuredSocket, type LiveOptions } from './client.js';
import { addConnection, repeatable, type CliCommand } from './command.js';
import { loadUsable, offlineSelection, printAnswer, type CliDeps } from './deps.js';
import * as format from './format.js';

interface ExplainOptions extends LiveOptions {
  /** `pool/backend` names or ids assumed down, all others up. Any makes it a question to the configuration. */
  readonly down: readonly string[];
}

/**
 * Which backend a flow goes to and why, as the running process decides; from the configuration alone where it is
 * named, where backends are assumed down, or where no process runs.
 */
export const explain: CliCommand = {
  name: 'explain',
  summary: 'say which backend a flow goes to, and exactly why',
  examples: [
    'haports explain tcp 192.0.2.7:40000 127.0.0.1:8080',
    'haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080',
    'haports explain -c config.json udp [2001:db8::7]:40000 [::1]:8053 --json',
    'haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080 --down nvas/nva-2',
  ],
  notes: `
The source is the client, the destination the frontend. The running process is asked, and shows the flow too if it has
it. With -c or --down, or where no process runs, the configuration alone is explained: probes are assumed up unless
--down says otherwise.`,
  exitCodes:
    '0 explained, also where no backend takes the flow; 1 the process that was named does not answer; 2 bad usage, ' +
    'or the configuration cannot be used',
  define: (command, { deps, run }) =>
    addConnection(command, 'the explanation as JSON')
      .argument('<protocol>', 'tcp or udp')
      .argument('<source>', 'client address and port, as 192.0.2.7:40000')
      .argument('<destination>', 'frontend address and port, as 127.0.0.1:8080')
      .addOption(
        repeatable('--down <pool/backend>', 'assume this backend is down').conflicts(['socket', 'http']),
      )
      .action(
        run(async (...[text, source, destination, options, self]: Asked) => {
          const protocol = text.toLowerCase();
          const tuple = readFields(ROUTES.explain.keys, { protocol, source, destination }) as FiveTuple;
          const isOffline = options.down.length > 0 || self.getOptionValueSource('config') === 'cli';
          const question = { protocol: tuple.protocol, source, destination };
          if (isOffline && !isNamed(options)) await explainOffline(deps, tuple, options);
          else await explainLive(deps, tuple, question, options);
        }),
      ),
};

type Asked = [protocol: string, source: string, destination: string, options: ExplainOptions, self: Command];

/** Of a process, on the command line. */
function isNamed({ socket, http }: ExplainOptions): boolean {
  return socket !== undefined || http !== undefined;
}

/**
 * As the running process decides. The configuration alone is explained where no process was named and none answers at
 * the configuration's socket. Throws where one was named and does not answer, or refuses.
 */
async function explainLive(
  deps: CliDeps,
  tuple: FiveTuple,
  question: Request<'explain'>,
  options: ExplainOptions,
): Promise<void> {
  const mustAnswer = isNamed(options) || (deps.env['HAPORTS_SOCKET'] ?? '') !== '';
  if (!mustAnswer && (await configuredSocket(deps, options.config).catch(() => undefined)) === undefined) {
    return explainOffline(deps, tuple, options);
  }
  const client = await clientFor(deps, options);
  try {
    printAnswer(deps, options, await client.explain(question), (answer, { nowMs }) => [
      ...formatExplanation(answer),
      ...rows({ 'Live flow': answer.flow && words.flowTexts(answer.flow, nowMs), Verdict: answer.verdict }),
      `As the process at ${format.printable(client.target.place)} decides now`,
    ]);
  } catch (error) {
    const isAbsent = error instanceof BalancerError && error.code === 'LB_NOT_RUNNING';
    if (mustAnswer || !isAbsent) throw error;
    return explainOffline(deps, tuple, options);
  }
}

async function explainOffline(deps: CliDeps, tuple: FiveTuple, options: ExplainOptions): Promise<void> {
  const { configuration } = await loadUsable(deps, options.config);
  const down = new Set(options.down.map((name) => findBackend(configuration, name).backend.id));
  const { compiler, picker } = await offlineSelection();
  const state = compiler.compile(configuration, {
    health: ({ id }) => ({ state: down.has(id) ? 'down' : 'up' }),
  });
  printAnswer(deps, options, explainFlow(picker, state, tuple), (explanation) => [
    ...formatExplanation(explanation),
    `Every ${down.size === 0 ? '' : 'other '}probe is assumed up: this is the configuration alone, no running process was asked`,
  ]);
}

const BYTES_A_LINE = 32;
/** Stands for a space at which no line is to be broken. */
const NO_BREAK = '\u00a0';

/** Labels in a column of 13 characters. */
function rows(texts: Readonly<Record<string, words.Texts>>): string[] {
  return format.labelled(texts, 13);
}

/** An explanation for people, within 80 columns as long as names are of ordinary length. */
export function formatExplanation(explanation: Explanation): readonly string[] {
  const { rule, hash, behaviour } = words.explanationRows(explanation);
  return [
    ...format.wrapWords(explanation.tuple, 0),
    ...rows({ '': verdict(explanation) }),
    '',
    ...rows(rule),
    ...keyLines(explanation),
    ...rows(hash),
    ...candidateLines(explanation),
    ...rows(behaviour),
  ];
}

function verdict({ result, endpoint, candidates, excluded, kernelMode }: Explanation): string {
  switch (result.kind) {
    case 'no-rule':
      return 'no rule covers it: not balanced';
    case 'denied':
      return 'denied: the frontend does not admit this source';
    case 'none': {
      const who =
        result.cause === 'no-eligible'
          ? 'no backend is eligible'
          : `every serving backend is among the ${excluded.length} excluded`;
      const dropped = kernelMode === undefined ? 'dropped (accepted over TCP, never answered)' : 'dropped';
      const then = result.action === 'reset' ? 'reset' : dropped;
      return `goes nowhere: ${who}; the flow is ${then}`;
    }
    case 'picked': {
      const backend = candidates.find(({ chosen }) => chosen);
      const name = backend?.name ?? result.backendId;
      const why = {
        hash: 'by its hash',
        retry: 'as the next in line, since the first is excluded',
        'fail-open': 'by its hash, failing open: no backend is eligible',
      }[result.reason];
      if (kernelMode === undefined || kernelMode === 'nat') {
        return `goes to ${name} at ${endpoint?.text ?? '?'}, ${why}`;
      }
      const preposition = kernelMode === 'next-hop' ? 'through' : 'to';
      return `goes ${preposition} ${name} (${backend?.address ?? '?'}) as it is, ${why}`;
    }
  }
}

/** What is hashed, field by field. */
function keyLines({ key }: Explanation): string[] {
  if (key === undefined) return [];
  return [
    ...key.fields.flatMap(({ name, hex, value }) =>
      hex.length > 12
        ? [`  ${name.padEnd(20)} ${value}`, `    ${hex}`]
        : [`  ${name.padEnd(20)} ${hex.padEnd(12)} ${value}`],
    ),
    `  ${'all bytes'.padEnd(20)} ${key.hex.length / 2} bytes`,
    ...(key.hex.match(new RegExp(`.{1,${2 * BYTES_A_LINE}}`, 'g')) ?? []).map((chunk) => `    ${chunk}`),
  ];
}

function candidateLines({ rule, candidates, table }: Explanation): string[] {
  if (candidates.length === 0) return [];
  const group = table?.servingPriority === undefined ? '' : `, priority ${table.servingPriority} serves`;
  const failOpen = table?.failOpen === true ? ', failing open' : '';
  return [
    ...rows({ Candidates: `${candidates.length} in the pool${group}${failOpen}` }),
    ...candidates.flatMap((candidate) => candidateText(candidate, rule?.probe)),
  ];
}

function candidateText(candidate: Candidate, probe: string | undefined): string[] {
  const { facts, verdict } = words.candidateTexts(candidate, probe);
  return [
    `  ${candidate.chosen ? '>' : ' '} ${candidate.name}  ${candidate.address}`,
    ...[facts.map((fact) => fact.replaceAll(' ', NO_BREAK)).join(', '), verdict].flatMap((text) =>
      format.wrapWords(`      ${text}`, 6),
    ),
  ].map((line) => line.replaceAll(NO_BREAK, ' '));
}
