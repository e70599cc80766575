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
import type { Request } from '../api/contract.js';
import { parseEndpoint, type FiveTuple, type Protocol } from '../model/address.js';
import { FLOW_TRIGGERS, type Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { explain } from '../selection/explain.js';
import { createHasher } from '../selection/flow-hash.js';
import { createPicker, type Picked } from '../selection/picker.js';
import {
  adminClient,
  adminTarget,
  configuredSocket,
  type ConnectionOptions,
  describeTarget,
  type LiveOptions,
  printJson,
  printLines,
} from './client.js';
import { EXIT, loadUsable, usageError, type CliDeps, type ExitCode } from './deps.js';
import { formatBytes, formatSpan, plural, printable, wrapWords } from './output.js';

export interface ExplainOptions extends LiveOptions {
  /** The configuration was named: it alone is explained. */
  readonly offline: boolean;
  /** `pool/backend` names or ids taken for down; all others for up. Any makes it a question to the configuration. */
  readonly down: readonly string[];
}

/**
 * `haports explain`: which backend a flow goes to and why, as the running process decides; from the configuration
 * alone where it is named, where backends are supposed to be down, or where no process runs.
 */
export async function explainCommand(
  deps: CliDeps,
  flow: AskedFlow,
  options: ExplainOptions,
): Promise<ExitCode> {
  const tuple = parseTuple(flow);
  if (!options.offline && options.down.length === 0) {
    const live = await explainLive(deps, { ...flow, protocol: tuple.protocol }, options);
    if (live !== undefined) {
      if (options.json) printJson(deps, live.explanation);
      else printLines(deps, [formatLiveExplanation(live, deps.clock.wallMs())]);
      return EXIT.fine;
    }
  }
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  const { configuration } = usable;
  const down = downIds(configuration, options.down);
  const hash = await createHasher();
  const state = new ForwardingCompiler(hash).compile(configuration, {
    health: ({ id }) => ({ state: down.has(id) ? 'down' : 'up' }),
    adminState: ({ adminState }) => adminState,
    draining: () => false,
  });
  const explanation = explain(createPicker(hash), state, tuple);
  deps.out(
    options.json
      ? `${JSON.stringify(explanation, undefined, 2)}\n`
      : `${formatExplanation(explanation)}\n${assumption(down.size)}\n`,
  );
  return EXIT.fine;
}

function assumption(downCount: number): string {
  const others = downCount === 0 ? 'Every probe' : 'Every other probe';
  return `${others} is taken for up: this is the configuration alone, no running process was asked`;
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
    protocol: protocol satisfies Protocol,
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
      throw usageError(`Cannot take "${name}" for down: it must be pool/backend as in the configuration`);
    }
    for (const { id } of found) ids.add(id);
  }
  return ids;
}

/** The flow that is asked about, as text. */
export interface AskedFlow {
  readonly protocol: string;
  readonly source: string;
  readonly destination: string;
}

export interface AnsweredExplanation {
  readonly explanation: LiveExplanation;
  /** Who was asked. */
  readonly place: string;
}

/**
 * Asks the running process. Undefined where none was named and none answers at the configuration's socket: then the
 * configuration alone is explained. Throws where one was named and does not answer, or refuses.
 */
export async function explainLive(
  deps: Pick<CliDeps, 'env' | 'readText'>,
  flow: Request<'explain'>,
  options: ConnectionOptions,
): Promise<AnsweredExplanation | undefined> {
  const isNamed =
    options.socket !== undefined || options.http !== undefined || (deps.env['HAPORTS_SOCKET'] ?? '') !== '';
  const socket = isNamed ? undefined : await configuredSocket(deps, options.config).catch(() => undefined);
  if (!isNamed && socket === undefined) return undefined;
  const target =
    socket === undefined ? await adminTarget(deps, options) : { kind: 'socket' as const, path: socket };
  try {
    return { explanation: await adminClient(target).explain(flow), place: describeTarget(target) };
  } catch (error) {
    if (!isNamed && error instanceof BalancerError && error.code === 'LB_NOT_RUNNING') return undefined;
    throw error;
  }
}

/** A live explanation for people, with the flow itself where there is one. Ends without a newline. */
export function formatLiveExplanation({ explanation, place }: AnsweredExplanation, nowMs: number): string {
  const { flow, verdict } = explanation;
  return [
    formatExplanation(explanation),
    ...(flow === undefined ? [] : flowLines(flow, nowMs)),
    ...wrapWords(printable(`Verdict      ${verdict}`), 80, 13),
    `As the process at ${printable(place)} decides now`,
  ].join('\n');
}

function flowLines(flow: FlowView, nowMs: number): readonly string[] {
  return [
    `Live flow    ${flow.state}, with ${flow.backendId} at ${flow.backendEndpoint}`,
    `             ${whyThere(flow)}`,
    `             opened ${formatSpan(nowMs - flow.openedAtMs)} ago at revision ${flow.epoch}, idle ${formatSpan(flow.idleMs)}`,
    `             to the backend ${formatBytes(flow.bytesToBackend)} in ${plural(flow.packetsToBackend, 'packet')},`,
    `             to the client ${formatBytes(flow.bytesToClient)} in ${plural(flow.packetsToClient, 'packet')}`,
    ...(flow.excluded.length === 0 ? [] : [`             left out when placed: ${flow.excluded.join(', ')}`]),
  ].map(printable);
}

function whyThere({ reason }: FlowView): string {
  return {
    hash: 'placed by its hash',
    retry: 'placed with another backend, the first could not be reached or was full',
    rebalanced: 'moved there by the flow policy',
    'fail-open': 'placed while nobody was eligible (fail-open)',
    pinned: 'pinned: its hash would now choose another, but it stays',
  }[reason];
}

const WIDTH = 80;
const LABEL_WIDTH = 13;
const BYTES_A_LINE = 32;
/** Stands for a space at which no line is to be broken. */
const NO_BREAK = '\u00a0';
/** Rules listed when none fits; the rest is only counted. */
const MISFITS_SHOWN = 20;

/** An explanation for people, within 80 columns as long as names are of ordinary length. Ends without a newline. */
export function formatExplanation(explanation: Explanation): string {
  return [
    ...wrap(explanation.tuple, 0),
    ...paragraph('', verdict(explanation)),
    '',
    ...ruleLines(explanation),
    ...(explanation.access === undefined ? [] : paragraph('Access', accessText(explanation.access))),
    ...keyLines(explanation),
    ...tableLines(explanation),
    ...wayBackLines(explanation),
    ...candidateLines(explanation),
    ...behaviourLines(explanation),
    ...paragraph(
      'State',
      `revision ${explanation.revision}, config ${explanation.configDigest.slice(0, 12)}`,
    ),
  ].join('\n');
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
        'fail-open': 'by its hash, failing open: nobody is eligible',
      }[result.reason];
      if (kernelMode === undefined || kernelMode === 'nat') {
        return `goes to ${name} at ${endpoint?.text ?? '?'}, ${why}`;
      }
      const way = kernelMode === 'next-hop' ? 'through' : 'to';
      return `goes ${way} ${name} (${backend?.address ?? '?'}) as it is, ${why}`;
    }
  }
}

function ruleLines({ rule, otherRules, endpoint, kernelMode }: Explanation): string[] {
  if (rule === undefined) {
    const shown = otherRules.slice(0, MISFITS_SHOWN).map((other) => `"${other.name}": ${whyText(other)}`);
    const more = otherRules.length - shown.length;
    if (more > 0) shown.push(`and ${more} more`);
    return list('Rules', shown.length === 0 ? ['none configured'] : shown);
  }
  const kind = rule.haPorts ? `HA ports, listening on ${rule.ports}` : `ports ${rule.ports}`;
  const probe = rule.probe === undefined ? 'no probe' : `probe "${rule.probe}"`;
  const lines = [
    `"${rule.name}" (${kind})`,
    `frontend "${rule.frontend}" ${rule.frontendAddress} -> pool "${rule.backendPool}", ${probe}`,
    ...otherRules.map((other) => `not "${other.name}": ${whyText(other)}`),
  ];
  if (endpoint?.floatingIp === true) {
    const how =
      kernelMode === undefined ? "dialled at the backend's alias for" : 'the backend has the address of';
    lines.push(`floating IP: ${how} the frontend`);
  } else if (endpoint !== undefined && endpoint.portOffset !== 0) {
    lines.push(`port ${endpoint.port - endpoint.portOffset} becomes ${endpoint.port}`);
  }
  return list('Rule', lines);
}

function whyText({ why }: OtherRule): string {
  return {
    'exact-address-wins': 'its frontend is a wildcard, an exact address wins',
    'named-port-wins': 'it is an HA-ports rule, a rule that names the port wins',
    'earlier-rule-wins': 'it comes later in the configuration',
    'other-protocol': 'other protocol',
    'other-address': 'other frontend address',
    'other-port': 'does not listen on this port',
  }[why];
}

function accessText({ because, block }: ExplainedAccess): string {
  return {
    'no-lists': 'admitted: no allow or deny list',
    'not-denied': 'admitted: not on the deny list, and there is no allow list',
    allow: `admitted by allow ${block ?? ''}`,
    deny: `denied by deny ${block ?? ''}`,
    'not-allowed': 'denied: not on the allow list',
  }[because];
}

function keyLines({ key }: Explanation): string[] {
  if (key === undefined) return [];
  const order = !key.symmetric
    ? 'not symmetric'
    : `symmetric, ${key.destinationFirst ? 'destination' : 'source'} endpoint first (the lower one)`;
  const fields = key.fields.flatMap(({ name, hex, value }) => [
    `  ${name.padEnd(20)} ${hex.length > 12 ? value : `${hex.padEnd(12)} ${value}`}`,
    ...(hex.length > 12 ? [`    ${hex}`] : []),
  ]);
  const chunks = key.hex.match(new RegExp(`.{1,${2 * BYTES_A_LINE}}`, 'g')) ?? [];
  return [
    ...paragraph('Hash input', `${key.distribution}, ${order}`),
    ...fields,
    `  ${'all bytes'.padEnd(20)} ${key.hex.length / 2} bytes`,
    ...chunks.map((chunk) => `    ${chunk}`),
    ...paragraph(
      'Hash',
      `${key.algorithm}, seed ${key.seed}: 0x${key.hash.toString(16).padStart(8, '0')} = ${key.hash}`,
    ),
  ];
}

function slotText({ algorithm, hash }: ExplainedKey, { size }: ExplainedTable): string {
  return algorithm === 'xxh32' ? `${hash} mod ${size}` : `${hash} * ${size} / 2^32`;
}

function nextTry({ algorithm }: ExplainedKey, { skipped }: Picked): string {
  if (algorithm === 'jhash') return `hashed again with seed + ${skipped}`;
  return `${skipped} ${skipped === 1 ? 'slot' : 'slots'} on`;
}

function tableLines({ key, table, result }: Explanation): string[] {
  if (key === undefined) return [];
  if (table === undefined) return paragraph('Slot', 'no table: no backend is eligible');
  const lines = [`${slotText(key, table)} = ${table.slot}, owned by ${table.owner}`];
  if (result.kind === 'picked' && result.skipped > 0) {
    lines.push(`which is excluded: ${nextTry(key, result)}, slot ${result.slot} is ${result.backendId}'s`);
  }
  if (table.perPacket)
    lines.push('each datagram by itself: this is the first, each next starts a slot later');
  return list('Slot', lines);
}

function wayBackLines({ wayBack }: Explanation): string[] {
  if (wayBack === undefined) return [];
  const { tuple, sameBy, hashedTo } = wayBack;
  const alone = hashedTo === undefined ? 'no rule covers it' : `its own hash leads to ${hashedTo}`;
  const why = {
    hash: 'the same hash, so the same backend, whoever sees the flow first',
    flow: `the same backend while the kernel knows the flow; after that ${alone}`,
    nothing: `SYMMETRY IS NOT GUARANTEED: ${alone}`,
  }[sameBy];
  return list('Way back', [tuple, why]);
}

function candidateLines({ rule, candidates, table }: Explanation): string[] {
  if (candidates.length === 0) return [];
  const group = table?.servingPriority === undefined ? '' : `, priority ${table.servingPriority} serves`;
  const failOpen = table?.failOpen === true ? ', failing open' : '';
  return [
    ...paragraph('Candidates', `${candidates.length} in the pool${group}${failOpen}`),
    ...candidates.flatMap((candidate) => candidateText(candidate, rule?.probe)),
  ];
}

function candidateText(candidate: Candidate, probe: string | undefined): string[] {
  const { effectiveWeight, configuredWeight } = candidate;
  const weight =
    effectiveWeight === configuredWeight
      ? `weight ${configuredWeight}`
      : `weight ${effectiveWeight} (configured ${configuredWeight})`;
  const facts = [
    probe === undefined ? 'no probe' : `probe ${candidate.health}`,
    `admin ${candidate.adminState}`,
    weight,
    `priority ${candidate.priority}`,
    candidate.slots === 0 ? 'no slots' : `${candidate.slots} slots (${(candidate.share * 100).toFixed(1)} %)`,
  ];
  const why = candidate.chosen
    ? 'chosen'
    : candidate.skipped === undefined
      ? 'in the running, other slots'
      : `skipped: ${skipText(candidate.skipped)}`;
  const keeps = candidate.valid ? '' : '; does not keep existing flows (see flow policy)';
  return [
    `  ${candidate.chosen ? '>' : ' '} ${candidate.name}  ${candidate.address}`,
    ...wrap(facts.map((fact) => fact.replaceAll(' ', NO_BREAK)).join(', '), 6),
    ...wrap(`${why}${keeps}`, 6),
  ];
}

function skipText(skipped: NonNullable<Candidate['skipped']>): string {
  return {
    'probe-down': 'its probe is down',
    'probe-unknown': 'its probe has no verdict yet',
    'admin-down': 'switched down by the operator',
    draining: 'draining',
    'weight-zero': 'weight 0 takes no new flows',
    standby: 'a better priority group serves',
    excluded: 'excluded for this flow (tried in vain, or at its cap)',
  }[skipped];
}

/** Conntrack tells nobody that a flow is over: who sends again hears of it. */
function idleEnd({ tcpReset }: ExplainedBehaviour, kernelMode: Explanation['kernelMode']): string {
  if (kernelMode !== undefined) return tcpReset ? 'forgotten; RST to who sends again' : 'forgotten, no RST';
  return tcpReset ? 'RST to both ends' : 'FIN to both ends, no RST';
}

function behaviourLines({ timeouts, behaviour, protocol, kernelMode }: Explanation): string[] {
  if (behaviour === undefined) return [];
  const policy = FLOW_TRIGGERS.map((trigger) => `${trigger} ${behaviour.flowPolicy[trigger][protocol]}`);
  const tcp = protocol === 'tcp';
  return [
    ...list(
      'Timeouts',
      timeouts.map(({ name, valueMs, origin }) => {
        const attempts = name === 'connect attempt' ? `, ${behaviour.connectAttempts} attempts at most` : '';
        return `${name} ${formatDuration(valueMs)} (${origin})${attempts}`;
      }),
    ),
    ...(tcp ? paragraph('Idle end', idleEnd(behaviour, kernelMode)) : []),
    ...paragraph('Flow policy', `${protocol}: ${policy.join(', ')}`),
    ...paragraph('All down', behaviour.allDown),
  ];
}

/** Durations as the configuration spells them: the largest unit that gives a whole number. */
function formatDuration(ms: number): string {
  if (ms > 0 && ms % 3_600_000 === 0) return `${ms / 3_600_000}h`;
  if (ms > 0 && ms % 60_000 === 0) return `${ms / 60_000}m`;
  if (ms % 1000 === 0) return `${ms / 1000}s`;
  return `${ms}ms`;
}

function list(label: string, items: readonly string[]): string[] {
  return items.flatMap((item, index) => paragraph(index === 0 ? label : '', item));
}

/** The label in its own column, the text wrapped beside it. */
function paragraph(label: string, text: string): string[] {
  const [first = '', ...rest] = wrap(text, LABEL_WIDTH);
  return [`${label.padEnd(LABEL_WIDTH)}${first.slice(LABEL_WIDTH)}`, ...rest];
}

function wrap(text: string, indent: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.map((content) => ' '.repeat(indent) + content.replaceAll(NO_BREAK, ' '));
}
