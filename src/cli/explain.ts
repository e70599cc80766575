import type { Command } from 'commander';
import type { Request } from '../api/contract.js';
import type {
  Candidate,
  ExplainedAccess,
  ExplainedBehaviour,
  ExplainedKey,
  ExplainedTable,
  Explanation,
  FlowView,
  OtherRule,
} from '../api/views.js';
import { parseEndpoint, type FiveTuple } from '../model/address.js';
import { FLOW_TRIGGERS, formatDuration, type Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { explain as explainFlow } from '../selection/explain.js';
import type { Picked } from '../selection/picker.js';
import { clientFor, configuredSocket, type LiveOptions } from './client.js';
import { addConnection, repeatable, type CliCommand } from './command.js';
import { loadUsable, offlineSelection, printAnswer, usageError, type CliDeps } from './deps.js';
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
        run((...[protocol, source, destination, options, self]: Asked) => {
          const tuple = parseTuple(protocol, source, destination);
          const isNamed = options.socket !== undefined || options.http !== undefined;
          const isOffline =
            options.down.length > 0 || (!isNamed && self.getOptionValueSource('config') === 'cli');
          const question = { protocol: tuple.protocol, source, destination };
          return isOffline
            ? explainOffline(deps, tuple, options)
            : explainLive(deps, tuple, question, options);
        }),
      ),
};

type Asked = [protocol: string, source: string, destination: string, options: ExplainOptions, self: Command];

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
  const isNamed =
    options.socket !== undefined || options.http !== undefined || (deps.env['HAPORTS_SOCKET'] ?? '') !== '';
  if (!isNamed && (await configuredSocket(deps, options.config).catch(() => undefined)) === undefined) {
    return explainOffline(deps, tuple, options);
  }
  const client = await clientFor(deps, options);
  try {
    printAnswer(deps, options, await client.explain(question), (answer, { nowMs }) => [
      ...formatExplanation(answer),
      ...rows({ 'Live flow': answer.flow && flowTexts(answer.flow, nowMs), Verdict: answer.verdict }),
      `As the process at ${format.printable(client.target.place)} decides now`,
    ]);
  } catch (error) {
    const isAbsent = error instanceof BalancerError && error.code === 'LB_NOT_RUNNING';
    if (isNamed || !isAbsent) throw error;
    return explainOffline(deps, tuple, options);
  }
}

async function explainOffline(deps: CliDeps, tuple: FiveTuple, options: ExplainOptions): Promise<void> {
  const { configuration } = await loadUsable(deps, options.config);
  const down = downIds(configuration, options.down);
  const { compiler, picker } = await offlineSelection();
  const state = compiler.compile(configuration, {
    health: ({ id }) => ({ state: down.has(id) ? 'down' : 'up' }),
  });
  printAnswer(deps, options, explainFlow(picker, state, tuple), (explanation) => [
    ...formatExplanation(explanation),
    `Every ${down.size === 0 ? '' : 'other '}probe is assumed up: this is the configuration alone, no running process was asked`,
  ]);
}

/** Throws `LB_USAGE`. */
function parseTuple(protocolText: string, sourceText: string, destinationText: string): FiveTuple {
  const protocol = protocolText.toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp') {
    throw usageError(`Cannot explain protocol "${protocolText}": it must be tcp or udp`);
  }
  const { address: source, port: sourcePort } = endpoint('source', sourceText);
  const { address: destination, port: destinationPort } = endpoint('destination', destinationText);
  if (source.family === destination.family) {
    return { protocol, source, sourcePort, destination, destinationPort };
  }
  throw usageError(
    `Cannot explain a flow from "${sourceText}" to "${destinationText}": both must be of one address family`,
  );
}

function endpoint(what: string, text: string): NonNullable<ReturnType<typeof parseEndpoint>> {
  const parsed = parseEndpoint(text);
  if (parsed !== undefined && parsed.port !== 0) return parsed;
  throw usageError(
    `Cannot read ${what} "${text}": it must be address:port, as 192.0.2.7:40000 or [2001:db8::7]:40000`,
  );
}

function downIds({ backendPools }: Configuration, names: readonly string[]): ReadonlySet<string> {
  const backends = backendPools.flatMap((pool) =>
    pool.backends.map(({ id, name }) => ({ id, name: `${pool.name}/${name}` })),
  );
  const ids = names.flatMap((asked) => {
    const found = backends.filter(({ id, name }) => asked === id || asked === name);
    if (found.length > 0) return found.map(({ id }) => id);
    throw usageError(`Cannot assume "${asked}" down: it must be pool/backend as in the configuration`);
  });
  return new Set(ids);
}

const REASONS: Readonly<Record<FlowView['reason'], string>> = {
  hash: 'placed by its hash',
  retry: 'placed with another backend: the first could not be reached or was full',
  rebalanced: 'moved there by the flow policy',
  'fail-open': 'placed while no backend was eligible (fail-open)',
  pinned: 'pinned: its hash would now choose another, but it stays',
};

function flowTexts(flow: FlowView, nowMs: number): format.LabelledTexts {
  return [
    `${flow.state}, with ${flow.backendId} at ${flow.backendEndpoint}`,
    REASONS[flow.reason],
    `opened ${format.span(nowMs - flow.openedAtMs)} ago at revision ${flow.epoch}, idle ${format.span(flow.idleMs)}`,
    `to the backend ${format.bytes(flow.bytesToBackend)} in ${format.plural(flow.packetsToBackend, 'packet')},`,
    `to the client ${format.bytes(flow.bytesToClient)} in ${format.plural(flow.packetsToClient, 'packet')}`,
    flow.excluded.length > 0 && `excluded when placed: ${flow.excluded.join(', ')}`,
  ];
}

const BYTES_A_LINE = 32;
/** Stands for a space at which no line is to be broken. */
const NO_BREAK = '\u00a0';
/** Rules listed when none fits; the rest is only counted. */
const MISFITS_SHOWN = 20;

/** Labels in a column of 13 characters. */
function rows(texts: Readonly<Record<string, format.LabelledTexts>>): string[] {
  return format.labelled(texts, 13);
}

/** An explanation for people, within 80 columns as long as names are of ordinary length. */
export function formatExplanation(explanation: Explanation): readonly string[] {
  const { tuple, rule, access, wayBack, revision, configDigest } = explanation;
  return [
    ...format.wrapWords(tuple, 0),
    ...rows({ '': verdict(explanation) }),
    '',
    ...rows({
      [rule === undefined ? 'Rules' : 'Rule']: ruleTexts(explanation),
      Access: access && ACCESS[access.because](access.block ?? ''),
    }),
    ...keyLines(explanation),
    ...rows({ Slot: slotTexts(explanation), 'Return path': wayBack && returnTexts(wayBack) }),
    ...candidateLines(explanation),
    ...rows({
      ...behaviourRows(explanation),
      State: `revision ${revision}, config ${configDigest.slice(0, 12)}`,
    }),
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

function ruleTexts({ rule, otherRules, endpoint, kernelMode }: Explanation): format.LabelledTexts {
  if (rule === undefined) {
    if (otherRules.length === 0) return 'none configured';
    const misfits = otherRules.map(({ name, why }) => `"${name}": ${NOT_THIS_RULE[why]}`);
    return format.shortList(misfits, MISFITS_SHOWN, '');
  }
  const kind = rule.haPorts ? `HA ports, listening on ${rule.ports}` : `ports ${rule.ports}`;
  const probe = rule.probe === undefined ? 'no probe' : `probe "${rule.probe}"`;
  const offset = endpoint?.floatingIp === true ? 0 : (endpoint?.portOffset ?? 0);
  return [
    `"${rule.name}" (${kind})`,
    `frontend "${rule.frontend}" ${rule.frontendAddress} -> pool "${rule.backendPool}", ${probe}`,
    ...otherRules.map(({ name, why }) => `not "${name}": ${NOT_THIS_RULE[why]}`),
    endpoint?.floatingIp === true &&
      `floating IP: ${kernelMode === undefined ? "dialled at the backend's alias for" : 'the backend has the address of'} the frontend`,
    endpoint !== undefined && offset !== 0 && `port ${endpoint.port - offset} becomes ${endpoint.port}`,
  ];
}

const NOT_THIS_RULE: Readonly<Record<OtherRule['why'], string>> = {
  'exact-address-wins': 'its frontend is a wildcard, an exact address wins',
  'named-port-wins': 'it is an HA-ports rule, a rule that names the port wins',
  'earlier-rule-wins': 'it comes later in the configuration',
  'other-protocol': 'other protocol',
  'other-address': 'other frontend address',
  'other-port': 'does not listen on this port',
};

const ACCESS: Readonly<Record<ExplainedAccess['because'], (block: string) => string>> = {
  'no-lists': () => 'admitted: no allow or deny list',
  'not-denied': () => 'admitted: not on the deny list, and there is no allow list',
  allow: (block) => `admitted by allow ${block}`,
  deny: (block) => `denied by deny ${block}`,
  'not-allowed': () => 'denied: not on the allow list',
};

function keyLines({ key }: Explanation): string[] {
  if (key === undefined) return [];
  const first = key.destinationFirst ? 'destination' : 'source';
  const order = key.symmetric ? `symmetric, ${first} endpoint first (the lower one)` : 'not symmetric';
  const hash = `0x${key.hash.toString(16).padStart(8, '0')} = ${key.hash}`;
  return [
    ...rows({ 'Hash input': `${key.distribution}, ${order}` }),
    ...key.fields.flatMap(({ name, hex, value }) =>
      hex.length > 12
        ? [`  ${name.padEnd(20)} ${value}`, `    ${hex}`]
        : [`  ${name.padEnd(20)} ${hex.padEnd(12)} ${value}`],
    ),
    `  ${'all bytes'.padEnd(20)} ${key.hex.length / 2} bytes`,
    ...(key.hex.match(new RegExp(`.{1,${2 * BYTES_A_LINE}}`, 'g')) ?? []).map((chunk) => `    ${chunk}`),
    ...rows({ Hash: `${key.algorithm}, seed ${key.seed}: ${hash}` }),
  ];
}

function slotText({ algorithm, hash }: ExplainedKey, { size }: ExplainedTable): string {
  return algorithm === 'xxh32' ? `${hash} mod ${size}` : `${hash} * ${size} / 2^32`;
}

function nextTry({ algorithm }: ExplainedKey, { skipped }: Picked): string {
  if (algorithm === 'jhash') return `hashed again with seed + ${skipped}`;
  return `${skipped} ${skipped === 1 ? 'slot' : 'slots'} on`;
}

function slotTexts({ key, table, result }: Explanation): format.LabelledTexts {
  if (key === undefined) return undefined;
  if (table === undefined) return 'no table: no backend is eligible';
  return [
    `${slotText(key, table)} = ${table.slot}, owned by ${table.owner}`,
    result.kind === 'picked' &&
      result.skipped > 0 &&
      `which is excluded: ${nextTry(key, result)}, slot ${result.slot} is ${result.backendId}'s`,
    table.perPacket && 'each datagram by itself: this is the first, each next starts a slot later',
  ];
}

function returnTexts({ tuple, sameBy, hashedTo }: NonNullable<Explanation['wayBack']>): format.LabelledTexts {
  const alone = hashedTo === undefined ? 'no rule covers it' : `its own hash leads to ${hashedTo}`;
  const why = {
    hash: 'the same hash, so the same backend, whichever direction comes first',
    flow: `the same backend while the kernel knows the flow; after that ${alone}`,
    nothing: `SYMMETRY IS NOT GUARANTEED: ${alone}`,
  }[sameBy];
  return [tuple, why];
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

const SKIPPED: Readonly<Record<NonNullable<Candidate['skipped']>, string>> = {
  'probe-down': 'its probe is down',
  'probe-unknown': 'its probe has no verdict yet',
  'admin-down': 'switched down by the operator',
  draining: 'draining',
  'weight-zero': 'weight 0 takes no new flows',
  standby: 'a better priority group serves',
  excluded: 'excluded for this flow (tried in vain, or at its cap)',
};

function candidateText(candidate: Candidate, probe: string | undefined): string[] {
  const { name, address, effectiveWeight, configuredWeight, slots, skipped } = candidate;
  const configured = effectiveWeight === configuredWeight ? '' : ` (configured ${configuredWeight})`;
  const facts = [
    probe === undefined ? 'no probe' : `probe ${candidate.health}`,
    `admin ${candidate.adminState}`,
    `weight ${effectiveWeight}${configured}`,
    `priority ${candidate.priority}`,
    slots === 0 ? 'no slots' : `${slots} slots (${format.share(candidate.share)})`,
  ];
  const taken = skipped === undefined ? 'eligible, owns other slots' : `skipped: ${SKIPPED[skipped]}`;
  const keeps = candidate.valid ? '' : '; does not keep existing flows (see flow policy)';
  return [
    `  ${candidate.chosen ? '>' : ' '} ${name}  ${address}`,
    ...[
      facts.map((fact) => fact.replaceAll(' ', NO_BREAK)).join(', '),
      `${candidate.chosen ? 'chosen' : taken}${keeps}`,
    ].flatMap((text) => format.wrapWords(`      ${text}`, 6)),
  ].map((line) => line.replaceAll(NO_BREAK, ' '));
}

/** Conntrack tells neither end that a flow is over: the end that sends again learns it. */
function idleEnd({ tcpReset }: ExplainedBehaviour, kernelMode: Explanation['kernelMode']): string {
  if (kernelMode !== undefined)
    return tcpReset ? 'forgotten; RST to the end that sends again' : 'forgotten, no RST';
  return tcpReset ? 'RST to both ends' : 'FIN to both ends, no RST';
}

function behaviourRows({ timeouts, behaviour, protocol, kernelMode }: Explanation) {
  if (behaviour === undefined) return {};
  const policy = FLOW_TRIGGERS.map((trigger) => `${trigger} ${behaviour.flowPolicy[trigger][protocol]}`);
  return {
    Timeouts: timeouts.map(({ name, valueMs, origin }) => {
      const attempts = name === 'connect attempt' ? `, ${behaviour.connectAttempts} attempts at most` : '';
      return `${name} ${formatDuration(valueMs)} (${origin})${attempts}`;
    }),
    'Idle end': protocol === 'tcp' && idleEnd(behaviour, kernelMode),
    'Flow policy': `${protocol}: ${policy.join(', ')}`,
    'All down': behaviour.allDown,
  };
}
