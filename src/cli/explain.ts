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
  LiveExplanation,
  OtherRule,
} from '../api/views.js';
import { parseEndpoint, type FiveTuple } from '../model/address.js';
import { FLOW_TRIGGERS, formatDuration, type Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { explain as explainFlow } from '../selection/explain.js';
import { createHasher } from '../selection/flow-hash.js';
import { Picker, type Picked } from '../selection/picker.js';
import { adminClient, adminTarget, configuredSocket, describeTarget, type LiveOptions } from './client.js';
import { addConnection, repeatable, type CliCommand } from './command.js';
import { EXIT, loadUsable, usageError, type CliDeps, type ExitCode } from './deps.js';
import {
  formatBytes,
  formatShare,
  formatSpan,
  labelled,
  plural,
  printable,
  printAnswer,
  shortList,
  TEXT_WIDTH,
  wrapWords,
  type LabelledRow,
} from './output.js';

interface ExplainOptions extends LiveOptions {
  /** `pool/backend` names or ids assumed down, all others up. Any makes it a question to the configuration. */
  readonly down: readonly string[];
}

/** The flow that is asked about, as text. */
interface AskedFlow {
  readonly protocol: string;
  readonly source: string;
  readonly destination: string;
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
        run(
          async (
            protocol: string,
            source: string,
            destination: string,
            options: ExplainOptions,
            self: Command,
          ) => {
            const isNamed = options.socket !== undefined || options.http !== undefined;
            const offline =
              options.down.length > 0 || (!isNamed && self.getOptionValueSource('config') === 'cli');
            const flow = { protocol, source, destination };
            const tuple = parseTuple(flow);
            const live = offline
              ? undefined
              : await askProcess(deps, { ...flow, protocol: tuple.protocol }, options);
            if (live === undefined) return explainOffline(deps, tuple, options);
            const { answer, place } = live;
            printAnswer(deps, options, answer, (_, { nowMs }) => formatLive(answer, { place, nowMs }));
            return EXIT.fine;
          },
        ),
      ),
};

async function explainOffline(deps: CliDeps, tuple: FiveTuple, options: ExplainOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  const { configuration } = usable;
  const down = downIds(configuration, options.down);
  const hash = await createHasher();
  const state = new ForwardingCompiler(hash).compile(configuration, {
    health: ({ id }) => ({ state: down.has(id) ? 'down' : 'up' }),
  });
  printAnswer(deps, options, explainFlow(new Picker(hash), state, tuple), (explanation) => [
    ...formatExplanation(explanation),
    `Every ${down.size === 0 ? '' : 'other '}probe is assumed up: this is the configuration alone, no running process was asked`,
  ]);
  return EXIT.fine;
}

function parseTuple(flow: AskedFlow): FiveTuple {
  const protocol = flow.protocol.toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp') {
    throw usageError(`Cannot explain protocol "${flow.protocol}": it must be tcp or udp`);
  }
  const source = endpoint('source', flow.source);
  const destination = endpoint('destination', flow.destination);
  if (source.address.family !== destination.address.family) {
    throw usageError(
      `Cannot explain a flow from "${flow.source}" to "${flow.destination}": both must be of one address family`,
    );
  }
  return {
    protocol,
    source: source.address,
    sourcePort: source.port,
    destination: destination.address,
    destinationPort: destination.port,
  };
}

function endpoint(what: string, text: string): NonNullable<ReturnType<typeof parseEndpoint>> {
  const parsed = parseEndpoint(text);
  if (parsed === undefined || parsed.port === 0) {
    throw usageError(
      `Cannot read ${what} "${text}": it must be address:port, as 192.0.2.7:40000 or [2001:db8::7]:40000`,
    );
  }
  return parsed;
}

function downIds(configuration: Configuration, names: readonly string[]): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const name of names) {
    const found = configuration.backendPools.flatMap((pool) =>
      pool.backends.filter((backend) => backend.id === name || `${pool.name}/${backend.name}` === name),
    );
    if (found.length === 0) {
      throw usageError(`Cannot assume "${name}" down: it must be pool/backend as in the configuration`);
    }
    for (const { id } of found) ids.add(id);
  }
  return ids;
}

/**
 * Asks the running process. Undefined where none was named and none answers at the configuration's socket: then the
 * configuration alone is explained. Throws where one was named and does not answer, or refuses.
 */
async function askProcess(
  deps: CliDeps,
  flow: Request<'explain'>,
  options: LiveOptions,
): Promise<{ readonly answer: LiveExplanation; readonly place: string } | undefined> {
  const isNamed =
    options.socket !== undefined || options.http !== undefined || (deps.env['HAPORTS_SOCKET'] ?? '') !== '';
  if (!isNamed && (await configuredSocket(deps, options.config).catch(() => undefined)) === undefined) {
    return undefined;
  }
  const target = await adminTarget(deps, options);
  try {
    return { answer: await adminClient(target).explain(flow), place: describeTarget(target) };
  } catch (error) {
    if (!isNamed && error instanceof BalancerError && error.code === 'LB_NOT_RUNNING') return undefined;
    throw error;
  }
}

/** A live explanation for people, with the flow itself where there is one. */
function formatLive(
  answer: LiveExplanation,
  { place, nowMs }: { readonly place: string; readonly nowMs: number },
): readonly string[] {
  const { flow, verdict: decided } = answer;
  return [
    ...formatExplanation(answer),
    ...rows([flow === undefined ? ['Live flow'] : flowRow(flow, nowMs), ['Verdict', decided]]),
    `As the process at ${printable(place)} decides now`,
  ];
}

const REASONS: Readonly<Record<FlowView['reason'], string>> = {
  hash: 'placed by its hash',
  retry: 'placed with another backend: the first could not be reached or was full',
  rebalanced: 'moved there by the flow policy',
  'fail-open': 'placed while no backend was eligible (fail-open)',
  pinned: 'pinned: its hash would now choose another, but it stays',
};

function flowRow(flow: FlowView, nowMs: number): LabelledRow {
  return [
    'Live flow',
    `${flow.state}, with ${flow.backendId} at ${flow.backendEndpoint}`,
    REASONS[flow.reason],
    `opened ${formatSpan(nowMs - flow.openedAtMs)} ago at revision ${flow.epoch}, idle ${formatSpan(flow.idleMs)}`,
    `to the backend ${formatBytes(flow.bytesToBackend)} in ${plural(flow.packetsToBackend, 'packet')},`,
    `to the client ${formatBytes(flow.bytesToClient)} in ${plural(flow.packetsToClient, 'packet')}`,
    flow.excluded.length > 0 && `excluded when placed: ${flow.excluded.join(', ')}`,
  ];
}

const BYTES_A_LINE = 32;
/** Stands for a space at which no line is to be broken. */
const NO_BREAK = '\u00a0';
/** Rules listed when none fits; the rest is only counted. */
const MISFITS_SHOWN = 20;

/** Labels in a column of 13 characters. */
function rows(labelledRows: readonly LabelledRow[]): string[] {
  return labelled(labelledRows, 13);
}

/** An explanation for people, within 80 columns as long as names are of ordinary length. */
export function formatExplanation(explanation: Explanation): readonly string[] {
  const { tuple, access, revision, configDigest } = explanation;
  return [
    ...wrapWords(tuple, TEXT_WIDTH, 0),
    ...rows([['', verdict(explanation)]]),
    '',
    ...rows([ruleRow(explanation), ['Access', access && accessText(access)]]),
    ...keyLines(explanation),
    ...rows([slotRow(explanation), returnRow(explanation)]),
    ...candidateLines(explanation),
    ...rows([
      ...behaviourRows(explanation),
      ['State', `revision ${revision}, config ${configDigest.slice(0, 12)}`],
    ]),
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

function ruleRow({ rule, otherRules, endpoint, kernelMode }: Explanation): LabelledRow {
  if (rule === undefined) {
    if (otherRules.length === 0) return ['Rules', 'none configured'];
    const misfits = otherRules.map(({ name, why }) => `"${name}": ${NOT_THIS_RULE[why]}`);
    return ['Rules', ...shortList(misfits, MISFITS_SHOWN, '')];
  }
  const kind = rule.haPorts ? `HA ports, listening on ${rule.ports}` : `ports ${rule.ports}`;
  const probe = rule.probe === undefined ? 'no probe' : `probe "${rule.probe}"`;
  const offset = endpoint?.floatingIp === true ? 0 : (endpoint?.portOffset ?? 0);
  return [
    'Rule',
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

function accessText({ because, block = '' }: ExplainedAccess): string {
  return {
    'no-lists': 'admitted: no allow or deny list',
    'not-denied': 'admitted: not on the deny list, and there is no allow list',
    allow: `admitted by allow ${block}`,
    deny: `denied by deny ${block}`,
    'not-allowed': 'denied: not on the allow list',
  }[because];
}

function keyLines({ key }: Explanation): string[] {
  if (key === undefined) return [];
  const first = key.destinationFirst ? 'destination' : 'source';
  const order = key.symmetric ? `symmetric, ${first} endpoint first (the lower one)` : 'not symmetric';
  const hash = `0x${key.hash.toString(16).padStart(8, '0')} = ${key.hash}`;
  return [
    ...rows([['Hash input', `${key.distribution}, ${order}`]]),
    ...key.fields.flatMap(({ name, hex, value }) =>
      hex.length > 12
        ? [`  ${name.padEnd(20)} ${value}`, `    ${hex}`]
        : [`  ${name.padEnd(20)} ${hex.padEnd(12)} ${value}`],
    ),
    `  ${'all bytes'.padEnd(20)} ${key.hex.length / 2} bytes`,
    ...(key.hex.match(new RegExp(`.{1,${2 * BYTES_A_LINE}}`, 'g')) ?? []).map((chunk) => `    ${chunk}`),
    ...rows([['Hash', `${key.algorithm}, seed ${key.seed}: ${hash}`]]),
  ];
}

function slotText({ algorithm, hash }: ExplainedKey, { size }: ExplainedTable): string {
  return algorithm === 'xxh32' ? `${hash} mod ${size}` : `${hash} * ${size} / 2^32`;
}

function nextTry({ algorithm }: ExplainedKey, { skipped }: Picked): string {
  if (algorithm === 'jhash') return `hashed again with seed + ${skipped}`;
  return `${skipped} ${skipped === 1 ? 'slot' : 'slots'} on`;
}

function slotRow({ key, table, result }: Explanation): LabelledRow {
  if (key === undefined) return ['Slot'];
  if (table === undefined) return ['Slot', 'no table: no backend is eligible'];
  return [
    'Slot',
    `${slotText(key, table)} = ${table.slot}, owned by ${table.owner}`,
    result.kind === 'picked' &&
      result.skipped > 0 &&
      `which is excluded: ${nextTry(key, result)}, slot ${result.slot} is ${result.backendId}'s`,
    table.perPacket && 'each datagram by itself: this is the first, each next starts a slot later',
  ];
}

function returnRow({ wayBack }: Explanation): LabelledRow {
  if (wayBack === undefined) return ['Return path'];
  const { tuple, sameBy, hashedTo } = wayBack;
  const alone = hashedTo === undefined ? 'no rule covers it' : `its own hash leads to ${hashedTo}`;
  const why = {
    hash: 'the same hash, so the same backend, whichever direction comes first',
    flow: `the same backend while the kernel knows the flow; after that ${alone}`,
    nothing: `SYMMETRY IS NOT GUARANTEED: ${alone}`,
  }[sameBy];
  return ['Return path', tuple, why];
}

function candidateLines({ rule, candidates, table }: Explanation): string[] {
  if (candidates.length === 0) return [];
  const group = table?.servingPriority === undefined ? '' : `, priority ${table.servingPriority} serves`;
  const failOpen = table?.failOpen === true ? ', failing open' : '';
  return [
    ...rows([['Candidates', `${candidates.length} in the pool${group}${failOpen}`]]),
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
    slots === 0 ? 'no slots' : `${slots} slots (${formatShare(candidate.share)})`,
  ];
  const taken = skipped === undefined ? 'eligible, owns other slots' : `skipped: ${SKIPPED[skipped]}`;
  const keeps = candidate.valid ? '' : '; does not keep existing flows (see flow policy)';
  return [
    `  ${candidate.chosen ? '>' : ' '} ${name}  ${address}`,
    ...[
      facts.map((fact) => fact.replaceAll(' ', NO_BREAK)).join(', '),
      `${candidate.chosen ? 'chosen' : taken}${keeps}`,
    ].flatMap((text) => wrapWords(`      ${text}`, TEXT_WIDTH, 6)),
  ].map((line) => line.replaceAll(NO_BREAK, ' '));
}

/** Conntrack tells neither end that a flow is over: the end that sends again learns it. */
function idleEnd({ tcpReset }: ExplainedBehaviour, kernelMode: Explanation['kernelMode']): string {
  if (kernelMode !== undefined)
    return tcpReset ? 'forgotten; RST to the end that sends again' : 'forgotten, no RST';
  return tcpReset ? 'RST to both ends' : 'FIN to both ends, no RST';
}

function behaviourRows({ timeouts, behaviour, protocol, kernelMode }: Explanation): readonly LabelledRow[] {
  if (behaviour === undefined) return [];
  const policy = FLOW_TRIGGERS.map((trigger) => `${trigger} ${behaviour.flowPolicy[trigger][protocol]}`);
  return [
    [
      'Timeouts',
      ...timeouts.map(({ name, valueMs, origin }) => {
        const attempts = name === 'connect attempt' ? `, ${behaviour.connectAttempts} attempts at most` : '';
        return `${name} ${formatDuration(valueMs)} (${origin})${attempts}`;
      }),
    ],
    ['Idle end', protocol === 'tcp' && idleEnd(behaviour, kernelMode)],
    ['Flow policy', `${protocol}: ${policy.join(', ')}`],
    ['All down', behaviour.allDown],
  ];
}
