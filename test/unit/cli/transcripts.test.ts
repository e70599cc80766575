import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { BalancerError } from '../../../src/model/errors.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import {
  aBackendView,
  aDrain,
  aFlow,
  aFlowList,
  anExplanation,
  anUpgrade,
  aPlan,
  aPool,
  aReload,
  aSimulation,
  aStatus,
  NOW_MS,
} from '../../support/api-answers.js';
import { GoldenFolder } from '../../support/golden.js';
import { example, haExample } from '../../support/example.js';
import { LogRecorder, randomFlows } from '../whatif/recorded-flows.js';
import { settings } from '../control/settings.js';
import { problem } from './fake-admin.js';
import { cliLab } from './cli-lab.js';
import type { FakeDeps } from './fake-deps.js';

/*
 * Whole command lines, and what they ask and print: `transcripts/<command>.txt` holds it. In a transcript `>` is a request
 * to the admin API with its body, `!` is stderr, `=` the exit code, and the rest stdout: text as it is, JSON on one line.
 */

const lab = cliLab();

/** A command line, what there is when it is typed, and what is special about that. */
interface Story {
  readonly line: string;
  /** By `GET /v1/status`: JSON, or what `problem` gives. */
  readonly answers?: Readonly<Record<string, unknown>>;
  /** Besides config.json, which names the socket. */
  readonly files?: Readonly<Record<string, object | string>>;
  /** Of the terminal. @default 80 */
  readonly columns?: number;
  readonly also?: (deps: FakeDeps) => unknown;
}

const KERNEL = {
  table: 'inet haports',
  mode: 'kernel nat, return by route',
  why: 'The configuration asks for the kernel data plane',
  state: 'in-place',
  sinceMs: NOW_MS - 65_000,
  repairs: 1,
  failures: 2,
  lastFailure: { atMs: NOW_MS - 1000, text: 'nft: too slow' },
  tool: 'nftables v1.0.6',
} as const;

const CAPTURE = { ...KERNEL, mode: 'capture dnat-map, udp redirect', why: 'All ports' };

/** Commands that keep to the width of the terminal. */
const LAID_OUT = ['status', 'backends', 'flows', 'top', 'drain', 'reload', 'simulate', 'replay'];

const NO_PROCESS = { 'config.json': { admin: { socket: './missing.sock' } } };

const STATUS = 'GET /v1/status';
const POOLS = 'GET /v1/pools';
const RELOAD = 'POST /v1/reload';
const EXPLAIN = 'GET /v1/explain';
const PLAN = 'POST /v1/plan';
const SIMULATE = 'POST /v1/simulate';

const flows = (...list: Parameters<typeof aFlowList>) => ({
  [POOLS]: [aPool()],
  'GET /v1/flows': aFlowList(...list),
});
const drained = (name: string, phase: 'draining' | 'done') =>
  aBackendView(name, '127.0.0.11', { serving: false, exclusion: 'draining', drain: aDrain({ phase }) });

const LONG_CLIENT = {
  protocol: 'udp',
  source: '2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff',
  sourcePort: 65535,
  destination: '2001:db8::1',
  destinationPort: 53,
} as const;
const FILTERS =
  '--rule=ha-ports --backend=nvas/nva-1 --protocol=tcp --source=192.0.2.7 --state=established --reason=pinned';

const DRAIN = '/v1/backends/nvas/nva-1/drain';
const FINDINGS = [
  { severity: 'error', code: 'LB_LOOP', path: 'rules[0]', message: 'A loop', line: 3, column: 7 },
  { severity: 'note', code: 'LB_NOTE', path: '', message: 'By the way' },
];
const UNUSABLE = problem(422, 'LB_CONFIG_INVALID', 'It cannot be used', { findings: FINDINGS });
const NEW = { 'new.json': '{ "ü": 1 }' };

const RISKY = haExample({ compat: 'none', pool: { backends: ['10.0.1.1'] } });
const BROKEN = example({ rule: { frontend: 'hubb', idletimeout: 1 } });
/** With a warning as well, which `explain` does not print. */
const NO_SUCH_PROBE = haExample({ pool: { backends: ['10.0.1.1'] }, rule: { probe: 'nosuch' } });

/** On the kernel data plane. */
function kernel(options: object, rule: object = {}, { address = '10.9.0.10', backends = 3 } = {}) {
  return haExample({
    seed: 0x12345678,
    dataPlane: { kind: 'kernel', kernel: options },
    frontend: { address },
    pool: { backends: hosts('10.2.0.1', backends) },
    rule: { listenPorts: undefined, ...rule },
  });
}

function hosts(prefix: string, count = 3) {
  return Array.from({ length: count }, (_, index) => ({
    name: `nva-${index + 1}`,
    address: `${prefix}${index + 1}`,
  }));
}

const NAT = kernel({});
const L2 = kernel({ mode: 'floating-l2', interface: 'eth0' }, { floatingIp: true });
const HOP = kernel({ mode: 'next-hop' }, { flowPolicy: 'firewall' }, { address: '0.0.0.0' });
const KERNEL_FLOW = 'tcp 10.1.0.2:40000 10.9.0.10:443';

const FLOW = 'tcp 192.0.2.7:40000 10.0.0.1:443';
const LIVE_FLOW = '192.0.2.7:40001 127.0.0.1:8080';

const CHANGES = aPlan({
  rules: [
    {
      name: 'ha-ports',
      change: 'changed',
      changes: ['idleTimeout', 'probe.interval'],
      movedShare: 0.25,
      flows: {
        tcp: { stay: 12_000, move: 0, reset: 3, drop: 0 },
        udp: { stay: 0, move: 40, reset: 0, drop: 0 },
      },
    },
    { ...aPlan().rules[0]!, name: 'web', renamedFrom: 'www', changes: ['name'], movedShare: 0 },
  ],
  movedShare: 0.25,
  flows: { stay: 12_000, move: 40, reset: 3, drop: 0 },
  backends: {
    added: [{ pool: 'nvas', backendId: 'nvas/10.0.0.4', name: 'nva-4' }],
    removed: [{ pool: 'nvas', backendId: 'nvas/10.0.0.9', name: '10.0.0.9' }],
    changed: [{ pool: 'nvas', backendId: 'nvas/10.0.0.1', name: 'nva-1', changes: ['weight'] }],
  },
  probeStateLost: [{ backendId: 'nvas/10.0.0.1', probe: 'alive' }],
  listeners: { kept: 65_534, opened: 1, closed: 0 },
  restartNeeded: ['metrics'],
  steps: ['Open 1 listener', 'Reset 3 flows'],
});

const hash = await createHasher();
const log = new LogRecorder(new ForwardingCompiler(hash), new Picker(hash));
log.epoch(settings());
for (const tuple of randomFlows(2000, 3)) log.place(tuple);
const victim = log.lines.findIndex((line) => line.includes('"backend":"nvas/10.0.0.1"'));
const TAMPERED = log.lines.with(
  victim,
  log.lines[victim]!.replace('"backend":"nvas/10.0.0.1"', '"backend":"nvas/10.0.0.3"'),
);
const THREE = haExample({ pool: { backends: hosts('127.0.0.1') } });
/** With a rule of the name that the log's has. */
const OTHER = { ...THREE, rules: [{ ...THREE.rules[0], name: 'ha-ports' }] };

const RUNNING = new BalancerError('It runs', { code: 'LB_INSTANCE_RUNNING', source: 'system' });
const connectTo = (open: number) => (deps: FakeDeps) => {
  deps.machine = {
    ...deps.machine,
    connect: ({ port }) => Promise.resolve(port === open ? 'connected' : 'silence'),
  };
};

/** A command that asks the process. */
function asks(line: string, answers: Story['answers']): Story {
  return { line, answers };
}

/** A command that reads files. */
function reads(line: string, files: Story['files']): Story {
  return { line, files };
}

const STORIES: Readonly<Record<string, readonly Story[]>> = {
  status: [
    asks('status', {
      [STATUS]: aStatus({ problems: ['1 of 100 listeners is closed'], drains: [aDrain()], workersLost: 1 }),
    }),
    asks('status', { [STATUS]: aStatus({ workers: 0, listeners: { tcp: 1, udp: 2 }, kernel: KERNEL }) }),
    asks('status', { [STATUS]: aStatus({ listeners: { tcp: 1, udp: 2 }, kernel: CAPTURE }) }),
    asks('status --json', { [STATUS]: aStatus() }),
    reads('status', NO_PROCESS),
    reads('status', { 'config.json': {} }),
  ],
  backends: [
    asks('backends', { [POOLS]: [aPool(), aPool({ name: 'others', serving: 0, backends: [] })] }),
    { ...asks('backends', { [POOLS]: [aPool()] }), columns: 200 },
    asks('backends nvas --json', { [`${POOLS}/nvas`]: aPool() }),
    asks('backends', {
      [POOLS]: [aPool({ backends: [drained('one', 'draining'), drained('two', 'done')] })],
    }),
  ],
  flows: [
    asks(`flows ${FILTERS} --sort=bytes --limit=1`, flows([aFlow(1, { reason: 'pinned' })], 7)),
    asks('flows', flows([])),
    asks('flows', flows([{ ...aFlow(1), tuple: LONG_CLIENT }])),
    asks('flows --sort rate', flows([aFlow(1, { bitsPerSecond: 1_230_000 }), aFlow(2)])),
    asks('flows --json', flows([aFlow(1)])),
  ],
  top: [
    asks('top', { ...flows([aFlow(1)]), [STATUS]: aStatus() }),
    asks('top', {
      ...flows([]),
      [STATUS]: aStatus({ kernel: KERNEL, problems: ['no listener is open', 'a worker is gone'] }),
    }),
    asks('top --filter elsewhere', { ...flows([aFlow(1)]), [STATUS]: aStatus({ kernel: CAPTURE }) }),
    { ...reads('top', NO_PROCESS), also: ({ terminal }) => (terminal.isInteractive = true) },
  ],
  'admin-state': [
    asks('admin-state nvas/nva-1 down', { 'PUT /v1/backends/nvas/nva-1/admin-state': undefined }),
    asks('admin-state nvas/::1 none --json', { 'PUT /v1/backends/nvas/%3A%3A1/admin-state': undefined }),
    { line: 'admin-state nvas/nva-1 off' },
    { line: 'admin-state nva-1 down' },
  ],
  weight: [
    ...['7', '0', 'configured --json'].map((weight) =>
      asks(`weight nvas/nva-1 ${weight}`, { 'PUT /v1/backends/nvas/nva-1/weight': undefined }),
    ),
    { line: 'weight nvas/nva-1 257' },
    asks('weight nvas/other 1', {
      'PUT /v1/backends/nvas/other/weight': problem(
        404,
        'LB_UNKNOWN_BACKEND',
        'There is no backend "nvas/other"',
      ),
    }),
  ],
  drain: [
    asks('drain nvas/nva-1 --deadline 1h --then leave --force', { [`POST ${DRAIN}`]: aDrain() }),
    ...[
      aDrain({ predictedFinishAtMs: NOW_MS + 3_600_000 }),
      aDrain({ predictedFinishAtMs: undefined }),
      aDrain({ deadlineAtMs: NOW_MS, phase: 'ending', longest: [] }),
    ].map((drain) => asks('drain nvas/nva-1 --show', { [`GET ${DRAIN}`]: drain })),
    asks('drain nvas/nva-1 --cancel', { [`DELETE ${DRAIN}`]: undefined }),
    { line: 'drain nvas/nva-1 --cancel --watch' },
    asks('drain nvas/nva-1', {
      [`POST ${DRAIN}`]: problem(409, 'LB_CONFLICT', 'Cannot drain "nva-1": 0 would be left'),
    }),
  ],
  reload: [
    { ...asks('reload -c new.json --socket SOCKET --max-moved 2.5%', { [RELOAD]: aReload() }), files: NEW },
    ...['', ' --json'].map((json) => ({
      ...asks(`reload -c new.json --socket SOCKET${json}`, { [RELOAD]: UNUSABLE }),
      files: NEW,
    })),
    ...['LB_RESTART_NEEDED', 'LB_CONFLICT', 'LB_APPLY_FAILED', 'LB_GATE_EXCEEDED'].map((code) => ({
      ...asks('reload -c new.json --socket SOCKET', { [RELOAD]: problem(409, code, 'Cannot reload') }),
      files: NEW,
    })),
    { line: 'reload -c missing.json' },
  ],
  upgrade: ['', ' --deadline 1h --json'].map((more) =>
    asks(`upgrade${more}`, { 'POST /v1/upgrade': anUpgrade() }),
  ),
  explain: [
    asks(`explain TCP ${LIVE_FLOW}`, { [EXPLAIN]: anExplanation() }),
    asks(`explain tcp ${LIVE_FLOW}`, { [EXPLAIN]: problem(500, 'LB_INTERNAL', 'Out of luck') }),
    reads(`explain ${FLOW}`, { 'config.json': { ...example(), ...NO_PROCESS['config.json'] } }),
    reads(`explain ${FLOW} --socket ./missing.sock`, { 'config.json': example() }),
    {
      ...reads(`explain ${FLOW}`, { 'config.json': example() }),
      also: ({ env }) => (env['HAPORTS_SOCKET'] = './missing.sock'),
    },
    reads(`explain -c other.json ${FLOW}`, { 'other.json': example() }),
    reads(`explain --json ${FLOW}`, { 'config.json': example() }),
    {
      line: `explain ${FLOW} --down nvas/10.0.1.1`,
      also: ({ files }) => files.set('config.json', { ...example(), admin: { socket: lab.admin.socket } }),
    },
    reads(`explain ${FLOW} --down nvas/two`, {
      'config.json': example({ pool: { backends: ['10.0.1.1', { name: 'two', address: '10.0.1.2' }] } }),
    }),
    reads(`explain ${FLOW} --down nvas/10.0.1.1 --down nvas/10.0.1.2`, { 'config.json': example() }),
    ...[NAT, L2, HOP].map((raw) => reads(`explain -c kernel.json ${KERNEL_FLOW}`, { 'kernel.json': raw })),
    reads(`explain -c k.json ${KERNEL_FLOW} --down nvas/nva-1 --down nvas/nva-2 --down nvas/nva-3`, {
      'k.json': kernel({}, { allDown: 'drop', tcpReset: false }),
    }),
    reads(`explain -c bad.json ${FLOW}`, { 'bad.json': NO_SUCH_PROBE }),
    ...[
      'icmp 192.0.2.7:40000 10.0.0.1:443',
      'tcp 192.0.2.7 10.0.0.1:443',
      'tcp 192.0.2.7:40000 10.0.0.1:70000',
      'tcp 192.0.2.7:40000 10.0.0.1:0',
      'tcp example.org:1 10.0.0.1:443',
      'tcp ::1:40000 10.0.0.1:443',
      'tcp [::1]:40000 10.0.0.1:443',
      `${FLOW} --down nvas/other`,
    ].map((flow) => reads(`explain ${flow}`, { 'config.json': example() })),
  ],
  plan: [
    ...['', ' --max-moved 25%', ' --max-moved 24.99%'].map((gate) => ({
      ...asks(`plan new.json${gate}`, { [PLAN]: { findings: [], report: CHANGES } }),
      files: NEW,
    })),
    { ...asks('plan new.json', { [PLAN]: { findings: [], report: aPlan({ steps: [] }) } }), files: NEW },
    { ...asks('plan new.json', { [PLAN]: UNUSABLE }), files: NEW },
    { ...asks('plan new.json --json', { [PLAN]: UNUSABLE }), files: NEW },
    {
      ...asks('plan new.json', { [PLAN]: problem(409, 'LB_CONFLICT', 'It has not started yet') }),
      files: NEW,
    },
    { line: 'plan missing.json' },
    ...['', ' --json', ' --max-moved 0.02'].map((more) =>
      reads(`plan new.json --against old.json${more}`, {
        'old.json': example(),
        'new.json': example({ pool: { backends: ['10.0.1.1', '10.0.1.2', '10.0.1.3'] } }),
      }),
    ),
    reads('plan old.json --against old.json --max-moved 0', { 'old.json': example() }),
    reads('plan bad.json --against old.json', { 'old.json': example(), 'bad.json': BROKEN }),
    reads('plan old.json --against bad.json', { 'old.json': example(), 'bad.json': BROKEN }),
    ...[
      L2,
      { ...NAT, dataPlane: {} },
      kernel({ returnPath: 'masquerade', onStop: 'remove' }),
      kernel({}, {}, { backends: 2 }),
    ].map((after) => reads('plan new.json --against nat.json', { 'nat.json': NAT, 'new.json': after })),
  ],
  simulate: [
    asks(
      'simulate --down nvas/nva-1 --up nvas/nva-2 --drain nvas/nva-3 --admin-state nvas/nva-1=down ' +
        '--admin-state nvas/::1=none --weight nvas/nva-2=50 --live',
      { [SIMULATE]: aSimulation() },
    ),
    asks('simulate --flows 5 --sources 4 --seed 3 --json', { [SIMULATE]: aSimulation() }),
    ...[
      '--weight nvas/nva-1',
      '--weight nvas/nva-1=257',
      '--weight nvas/nva-1=configured',
      '--admin-state nvas/nva-1=off',
      '--admin-state nvas/nva-1=configured',
      '--live --offline config.json',
      '--live --flow-log flow.log',
      '--flow-log missing.log',
    ].map((wrong) => ({ line: `simulate ${wrong}` })),
    ...[
      '--down nvas/nva-2',
      '--down nvas/nva-1 --down nvas/nva-2 --down nvas/nva-3 --flows 100',
      '--down nvas/nva-9',
    ].map((down) => reads(`simulate --offline three.json ${down}`, { 'three.json': THREE })),
    ...[NAT, L2, HOP].map((raw) =>
      reads('simulate --offline kernel.json --down nvas/nva-2', { 'kernel.json': raw }),
    ),
    reads('simulate --offline bad.json', { 'bad.json': BROKEN }),
    reads('simulate --flow-log flow.log --down nvas/nva-2', { 'flow.log': `${log.text}{"torn` }),
    reads('simulate --flow-log flow.log --down nvas/nva-2 --last 500 --json', { 'flow.log': log.text }),
    ...[OTHER, THREE, BROKEN].map((raw) =>
      reads('simulate --flow-log flow.log --down nvas/nva-2 --offline start.json', {
        'flow.log': log.text,
        'start.json': raw,
      }),
    ),
  ],
  replay: [
    ...[log.text, [...TAMPERED, '{"torn'].join(''), '', log.lines.slice(2, 5).join('')].map((text) =>
      reads('replay flow.log', { 'flow.log': text }),
    ),
    reads('replay flow.log --json', { 'flow.log': TAMPERED.join('') }),
    { line: 'replay missing.log' },
  ],
  check: [
    ...[example(), RISKY, BROKEN, L2, kernel({}, { udp: { perPacket: true } })].map((raw) =>
      reads('check -c checked.json', { 'checked.json': raw }),
    ),
    ...[example(), BROKEN, '{ "frontends": ['].map((raw) => reads('check --json', { 'config.json': raw })),
  ],
  kernel: [
    reads('kernel ruleset', { 'config.json': haExample() }),
    reads('kernel ruleset --full', { 'config.json': haExample() }),
    reads('kernel ruleset', { 'config.json': BROKEN }),
    { line: 'kernel flush' },
    {
      line: 'kernel flush --instance edge',
      also: (deps) => (deps.leftovers = ['table inet haports-edge', 'ip -4 route local 240.7.0.0/16 dev lo']),
    },
    {
      line: 'kernel flush',
      also: ({ kernel }) => (kernel.flush = () => Promise.reject(RUNNING)),
    },
    // No name that could be more than a name for nft.
    ...['x;flush', '', '-x', 'A', 'x'.repeat(64)].map((name) => ({
      line: `kernel flush --instance ${name}`,
    })),
    { line: 'kernel burn' },
  ],
  doctor: [
    reads('doctor', { 'config.json': haExample() }),
    { ...reads('doctor --json --port 8080', { 'config.json': haExample() }), also: connectTo(8080) },
    reads('doctor', { 'config.json': BROKEN }),
  ],
};

describe('what commands ask and print', () => {
  const golden = new GoldenFolder('test/unit/cli/transcripts', 'txt');

  async function play({ line, answers = {}, files = {}, columns = 80, also }: Story): Promise<string> {
    const deps = lab.reset();
    for (const [question, answer] of Object.entries(answers)) lab.answer(question, answer);
    for (const [name, content] of Object.entries(files)) deps.files.set(name, content);
    deps.terminal.columns = columns;
    also?.(deps);
    const words = line.replace('SOCKET', lab.admin.socket).split(' ');
    const code = await deps.run(...words);
    const clean = (text: string): string => {
      const known = text.replaceAll(lab.admin.socket, '/run/haports.sock');
      if (lab.admin.seen.length > 0) return known;
      // Digests change with every new key, and what findings say is held by the tests of the checks.
      return known
        .replaceAll(/\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b/g, '<digest>')
        .replaceAll(/^(.*\.json:\d+:\d+: (?:error|warning|note) \S+ \S+:) .*$/gm, '$1 ...')
        .replaceAll(/"(message|found|expected|reason)":"(?:[^"\\]|\\.)*"/g, '"$1":"..."');
    };
    const isJson = words.includes('--json') && deps.stdout !== '';
    if (!isJson && LAID_OUT.includes(words[0]!)) assertFits(clean(deps.stdout), columns);
    assert.deepEqual([deps.started, deps.signalListeners, deps.outputListeners], [[], 0, 0]);
    const errors = deps.stderr.split('\n').slice(0, -1);
    return clean(
      [
        `$ haports ${words.join(' ')}\n`,
        ...lab.admin.seen
          .map(({ method, path, search, body }) => `> ${method} ${path}${search} ${body}`.trimEnd() + '\n')
          .toSorted(),
        isJson ? jsonText(deps.stdout, Object.values(answers)) : deps.stdout,
        ...errors.map((one) => `! ${one}\n`),
        `= ${code}\n\n`,
      ].join(''),
    );
  }

  function assertFits(text: string, columns: number): void {
    for (const line of text.split('\n')) assert.ok(line.length <= columns, line);
  }

  /** On one line, and only what is not an answer. */
  function jsonText(text: string, answers: readonly unknown[]): string {
    const value: unknown = JSON.parse(text);
    assert.equal(text, `${JSON.stringify(value, undefined, 2)}\n`);
    return answers.some((one) => isDeepStrictEqual(one, value))
      ? '(the answer)\n'
      : `${JSON.stringify(value)}\n`;
  }

  for (const [name, stories] of Object.entries(STORIES)) {
    test(name, async () => {
      let transcript = '';
      for (const story of stories) transcript += await play(story);
      golden.compare(name, transcript);
    });
  }
});
