import type { FlowView } from '../../../src/api/views.js';
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { within } from '../../support/deadline.js';
import {
  anExplanation,
  aBackendView,
  aDrain,
  aFlow,
  aFlowList,
  aPool,
  aReload,
  aStatus,
  NOW_MS,
} from '../../support/api-answers.js';
import { FakeAdmin, problem, type SeenRequest } from './fake-admin.js';
import { FakeDeps } from './fake-deps.js';

let admin: FakeAdmin;
let deps: FakeDeps;

before(async () => {
  admin = await new FakeAdmin().start();
});

after(() => admin.stop());

beforeEach(() => {
  admin.answers.clear();
  admin.seen.length = 0;
  deps = new FakeDeps();
  deps.files.set('config.json', { admin: { socket: admin.socket } });
  const { clock } = deps;
  // Timers ten times as fast: what waits a second is tried in a tenth.
  deps.clock = {
    monotonicMs: () => clock.monotonicMs(),
    wallMs: () => NOW_MS,
    setTimer: (delayMs, callback, options) => clock.setTimer(delayMs / 10, callback, options),
  };
});

function answer(question: string, json: unknown, status = 200): void {
  admin.answers.set(question, { status, json });
}

/** Every line fits the terminal. */
function assertFits(text: string, columns: number): void {
  for (const line of text.split('\n')) assert.ok(line.length <= columns, `${line.length}: ${line}`);
}

function lastSeen(): SeenRequest {
  const seen = admin.seen.at(-1);
  assert.ok(seen !== undefined);
  return seen;
}

describe('haports status', () => {
  test('status shows the process as a whole', async () => {
    admin.answers.set('GET /v1/status', {
      json: aStatus({ problems: ['1 of 100 listeners is closed'], drains: [aDrain()], workersLost: 1 }),
    });
    assert.equal(await deps.run('status'), 0);
    assert.equal(
      deps.stdout,
      `haports        0.1.0, pid 4711, up 3h05m
Workers        2, 1 worker lost so far
Configuration  config.json, digest abcdef012345, loaded 12m00s ago
Last reload    12m00s ago, applied: revision 17
Revision       17
Listeners      100 TCP, 100 UDP
Backends       2 of 3 serving
Flows          42 live, 7.3 new a second, 12,345 in all
To backends    1.20 Mbit/s, 1.50MB in all
To clients     346 Mbit/s, 98.8MB in all
Failures       3 connects, 4 resets
Table          TCP 30 of 65,536 (0.0 %)
               UDP 12 of 65,536 (0.0 %)
               embryonic 0 of 4,096 (0.0 %)
Drains         nvas/nva-1 draining: 12 flows left of 300, deadline in 9m00s
Problems       1 of 100 listeners is closed
`,
    );
    assert.equal(deps.stderr, '');
  });

  test('status --json prints what the process answered', async () => {
    answer('GET /v1/status', aStatus());
    assert.equal(await deps.run('status', '--json'), 0);
    assert.deepEqual(JSON.parse(deps.stdout), aStatus());
  });

  test('status without a process is one line and exit code 1', async () => {
    deps.files.set('config.json', { admin: { socket: './nobody-there.sock' } });
    assert.equal(await deps.run('status'), 1);
    assert.match(
      deps.stderr,
      /^haports: LB_NOT_RUNNING: No haports answers at "\.\/nobody-there\.sock"[^\n]+\n$/,
    );
    assert.equal(deps.stdout, '');
  });

  test('status of a process that nothing names is one line and exit code 2', async () => {
    deps.files.set('config.json', {});
    assert.equal(await deps.run('status'), 2);
    assert.match(deps.stderr, /^haports: LB_USAGE: [^\n]+"socket"[^\n]+\n$/);
  });
});

describe('haports backends', () => {
  test('backends shows a table for each pool, as wide as the terminal', async () => {
    admin.answers.set('GET /v1/pools', {
      json: [aPool(), aPool({ name: 'others', serving: 0, backends: [] })],
    });
    assert.equal(await deps.run('backends'), 0);
    assertFits(deps.stdout, 80);
    const [heading, title, first, second, third, blank, other] = deps.stdout.split('\n');
    assert.equal(heading, 'Pool nvas: 2 of 3 serving, priority 0 serves; rules ha-ports');
    assert.match(title ?? '', /^BACKEND +STATE +FLOWS +NEW\/S +WEIGHT/);
    assert.match(first ?? '', /^nva-1 +serving +42 +7\.3 +1 +50\.0 % +48\.7 %/);
    assert.match(second ?? '', /^nva-2 +serving .* 5 \(op\) /);
    assert.match(third ?? '', /^nva-3 +probe down /);
    assert.equal(blank, '');
    assert.match(other ?? '', /^Pool others: 0 of 0 serving/);
  });

  test('backends shows more on a wider terminal', async () => {
    deps.terminal.columns = 200;
    answer('GET /v1/pools', [aPool()]);
    await deps.run('backends');
    assertFits(deps.stdout, 200);
    assert.match(deps.stdout, /PROBE SAYS/);
    assert.match(deps.stdout, /127\.0\.0\.13 +alive down: HTTP 503/);
  });

  test('backends of one pool asks for it alone', async () => {
    answer('GET /v1/pools/nvas', aPool());
    assert.equal(await deps.run('backends', 'nvas', '--json'), 0);
    assert.deepEqual(JSON.parse(deps.stdout), [aPool()]);
  });

  test('backends tells a drained backend from one that is draining', async () => {
    const drained = (name: string, phase: 'draining' | 'done') =>
      aBackendView(name, '127.0.0.11', { serving: false, exclusion: 'draining', drain: aDrain({ phase }) });
    admin.answers.set('GET /v1/pools', {
      json: [aPool({ backends: [drained('one', 'draining'), drained('two', 'done')] })],
    });
    await deps.run('backends');
    assert.match(deps.stdout, /^one +draining/m);
    assert.match(deps.stdout, /^two +drained/m);
  });
});

describe('haports flows', () => {
  beforeEach(() => {
    answer('GET /v1/pools', [aPool()]);
  });

  test('flows sends every filter, and shows flows by the names of their backends', async () => {
    answer('GET /v1/flows', aFlowList([aFlow(1, { reason: 'pinned' })], 7));
    const filters = [
      'rule=ha-ports',
      'backend=nvas/nva-1',
      'protocol=tcp',
      'source=192.0.2.7',
      'state=established',
    ];
    const more = ['reason=pinned', 'sort=bytes', 'limit=1'];
    assert.equal(await deps.run('flows', ...[...filters, ...more].map((filter) => `--${filter}`)), 0);
    const { query } = admin.seen.find(({ path }) => path === '/v1/flows') ?? lastSeen();
    assert.deepEqual(
      Object.entries(query)
        .map(([key, value]) => `${key}=${value}`)
        .toSorted(),
      [...filters, ...more].toSorted(),
    );
    assertFits(deps.stdout, 80);
    assert.match(deps.stdout, /^tcp +192\.0\.2\.7:40001 +nvas\/nva-1 +pinned +3m12s +1s +1\.00kB +2\.00MB$/m);
    assert.match(deps.stdout, /^1 of 7 flows shown/m);
  });

  test('flows asks for the hundred oldest unless told otherwise', async () => {
    answer('GET /v1/flows', aFlowList([]));
    assert.equal(await deps.run('flows'), 0);
    assert.deepEqual(admin.seen.find(({ path }) => path === '/v1/flows')?.query, {
      sort: 'age',
      limit: '100',
    });
    assert.equal(deps.stdout, '0 flows\n');
  });

  test('flows keeps long IPv6 clients readable in 80 columns', async () => {
    const flow: FlowView = {
      ...aFlow(1),
      tuple: {
        protocol: 'udp',
        source: '2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff',
        sourcePort: 65535,
        destination: '2001:db8::1',
        destinationPort: 53,
      },
    };
    answer('GET /v1/flows', aFlowList([flow]));
    await deps.run('flows');
    assertFits(deps.stdout, 80);
    assert.match(deps.stdout, /\[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff\]:65535/);
  });
});

describe('haports admin-state and weight', () => {
  test('admin-state and weight tell the process, and what it means', async () => {
    admin.answers.set('PUT /v1/backends/nvas/nva-1/admin-state', { status: 204 });
    admin.answers.set('PUT /v1/backends/nvas/nva-1/weight', { status: 204 });
    assert.equal(await deps.run('admin-state', 'nvas/nva-1', 'down'), 0);
    assert.deepEqual(JSON.parse(lastSeen().body), { adminState: 'down' });
    assert.match(deps.stdout, /^nvas\/nva-1 gets no new flows/);
    assert.equal(await deps.run('weight', 'nvas/nva-1', 'configured', '--json'), 0);
    assert.deepEqual(JSON.parse(lastSeen().body), { weight: 'configured' });
  });

  test('what cannot be meant is refused before anybody is asked', async () => {
    for (const args of [
      ['admin-state', 'nvas/nva-1', 'off'],
      ['admin-state', 'nva-1', 'down'],
      ['weight', 'nvas/nva-1', '257'],
    ]) {
      deps.stderr = '';
      assert.equal(await deps.run(...args), 2, args.join(' '));
      assert.match(deps.stderr, /^haports: LB_USAGE: [^\n]+\n$/);
    }
    assert.deepEqual(admin.seen, []);
  });
});

describe('what the process refuses', () => {
  const RELOAD = 'POST /v1/reload';
  const CASES: readonly (readonly [
    line: string,
    question: string,
    code: string,
    words: string,
    exit: number,
  ])[] = [
    [
      'weight nvas/nobody 1',
      'PUT /v1/backends/nvas/nobody/weight',
      'LB_UNKNOWN_BACKEND',
      'There is no backend "nvas/nobody"',
      2,
    ],
    ['reload --max-moved 2%', RELOAD, 'LB_GATE_EXCEEDED', 'Cannot reload: 26.7 % would move', 3],
    ['reload', RELOAD, 'LB_RESTART_NEEDED', 'Cannot reload', 1],
    ['reload', RELOAD, 'LB_CONFLICT', 'Cannot reload', 1],
    ['reload', RELOAD, 'LB_APPLY_FAILED', 'Cannot reload', 1],
    ['explain tcp 192.0.2.7:40001 127.0.0.1:8080', 'GET /v1/explain', 'LB_INTERNAL', 'Out of luck', 1],
    [
      'drain nvas/nva-1',
      'POST /v1/backends/nvas/nva-1/drain',
      'LB_CONFLICT',
      'Cannot drain "nva-1": 0 would be left',
      1,
    ],
  ];

  for (const [line, question, code, words, exit] of CASES) {
    test(`${line}: ${code} is exit code ${exit}, in the words of the process`, async () => {
      admin.answers.set(question, problem(409, code, words));
      assert.equal(await deps.run(...line.split(' ')), exit);
      assert.deepEqual([deps.stderr, deps.stdout], [`haports: ${code}: ${words}\n`, '']);
    });
  }
});

describe('haports reload', () => {
  const text = '{ "admin": { "socket": "SOCKET" }, "ü": 1 }';

  beforeEach(() => {
    deps.files.set('new.json', text.replace('SOCKET', admin.socket));
  });

  test('reload sends the text of the file and shows what was kept and lost', async () => {
    answer('POST /v1/reload', aReload());
    assert.equal(await deps.run('reload', '-c', 'new.json', '--max-moved', '2.5%'), 0);
    assert.equal(lastSeen().body, text.replace('SOCKET', admin.socket));
    assert.deepEqual(lastSeen().query, { maxMoved: '0.025' });
    assertFits(deps.stdout, 80);
    assert.match(deps.stdout, /^Reloaded in 13ms: revision 18, digest bbbbbbbbbbbb$/m);
    assert.match(
      deps.stdout,
      /kept +46 flows, 200 listeners, 3 probe targets, 1 operator setting, 0\s+drains/,
    );
    assert.match(deps.stdout, /lost +2 flows, 0 listeners/);
    assert.match(deps.stdout, /rule +"ha-ports" changed: distribution/);
    assert.match(deps.stdout, /added +nvas\/nva-4/);
  });

  test('reload of what cannot be used shows each error and where, and is exit code 2', async () => {
    const findings = [
      { severity: 'error', code: 'LB_LOOP', path: 'rules[0]', message: 'A loop', line: 3, column: 7 },
      { severity: 'note', code: 'LB_NOTE', path: '', message: 'By the way' },
    ];
    admin.answers.set(
      'POST /v1/reload',
      problem(422, 'LB_CONFIG_INVALID', 'It cannot be used', { findings }),
    );
    assert.equal(await deps.run('reload', '-c', 'new.json'), 2);
    assert.equal(
      deps.stderr,
      'new.json:3:7: error LB_LOOP rules[0]: A loop\nhaports: LB_CONFIG_INVALID: It cannot be used\n',
    );
    deps.stdout = '';
    assert.equal(await deps.run('reload', '-c', 'new.json', '--json'), 2);
    assert.deepEqual(JSON.parse(deps.stdout), {
      code: 'LB_CONFIG_INVALID',
      message: 'It cannot be used',
      findings,
    });
  });

  test('reload of a file that is not there is exit code 2', async () => {
    assert.equal(await deps.run('reload', '-c', 'nosuch.json'), 2);
    assert.match(deps.stderr, /"nosuch\.json" cannot be read/);
  });
});

describe('haports explain, live', () => {
  const FLOW = ['tcp', '192.0.2.7:40001', '127.0.0.1:8080'] as const;
  const explanation = anExplanation();

  test('explain asks the running process and shows the flow too', async () => {
    answer('GET /v1/explain', explanation);
    assert.equal(await deps.run('explain', 'TCP', FLOW[1], FLOW[2]), 0);
    assert.deepEqual(lastSeen().query, { protocol: 'tcp', source: FLOW[1], destination: FLOW[2] });
    assertFits(deps.stdout, 80 + admin.socket.length);
    assert.match(deps.stdout, /^Live flow +established, with nvas\/127\.0\.0\.11 at 127\.0\.0\.11:8080$/m);
    assert.match(deps.stdout, /pinned: its hash would now choose another, but it stays/);
    assert.match(deps.stdout, /^Verdict +The live flow is elsewhere/m);
    assert.match(deps.stdout, /As the process at .* decides now\n$/);
    assert.deepEqual(deps.loaded, [], 'the configuration is not explained');
  });

  test('explain with -c or --down asks nobody', async () => {
    answer('GET /v1/explain', explanation);
    for (const more of [
      ['-c', 'config.json'],
      ['--down', 'nvas/nva-1'],
    ]) {
      await deps.run('explain', ...FLOW, ...more);
    }
    assert.deepEqual(admin.seen, []);
    assert.equal(deps.loaded.length, 2);
  });

  test('explain explains the configuration where its process does not run, and fails where one was named', async () => {
    deps.files.set('config.json', { admin: { socket: './nobody-there.sock' } });
    await deps.run('explain', ...FLOW);
    assert.deepEqual(deps.loaded, ['config.json']);
    assert.equal(await deps.run('explain', ...FLOW, '--socket', './nobody-there.sock'), 1);
    assert.match(deps.stderr, /LB_NOT_RUNNING/);
    deps.env['HAPORTS_SOCKET'] = './nobody-there.sock';
    assert.equal(await deps.run('explain', ...FLOW), 1);
    assert.equal(deps.loaded.length, 1);
  });
});

describe('haports drain', () => {
  const DRAIN = '/v1/backends/nvas/nva-1/drain';
  const watchToTheEnd = (...more: readonly string[]): Promise<number> =>
    within(deps.run('drain', 'nvas/nva-1', '--watch', ...more), 5000, 'the end of watching');

  test('drain starts one with what was asked, and shows it', async () => {
    answer(`POST ${DRAIN}`, aDrain(), 202);
    assert.equal(await deps.run('drain', 'nvas/nva-1', '--deadline', '1h', '--then', 'leave', '--force'), 0);
    assert.deepEqual(JSON.parse(lastSeen().body), {
      deadline: '1h',
      then: 'leave',
      spread: '10s',
      force: true,
    });
    assertFits(deps.stdout, 80);
    assert.match(deps.stdout, /^nvas\/nva-1 draining: 12 flows left of 300, deadline in 9m00s$/m);
    assert.match(deps.stdout, /finish +in about 3m12s by themselves$/m);
    assert.match(deps.stdout, /last new +1m01s ago$/m);
    assert.match(deps.stdout, /192\.0\.2\.7:40001/);
    assert.equal(deps.signalListeners, 0);
  });

  test('drain says what a prediction past the deadline means, and what there is to go by', async () => {
    answer(`GET ${DRAIN}`, aDrain({ predictedFinishAtMs: NOW_MS + 3_600_000 }));
    await deps.run('drain', 'nvas/nva-1', '--show');
    assert.match(
      deps.stdout.replaceAll(/\s+/g, ' '),
      /in about 1h00m by themselves, which is past the deadline: some will be ended/,
    );
    answer(`GET ${DRAIN}`, { ...aDrain(), predictedFinishAtMs: undefined });
    await deps.run('drain', 'nvas/nva-1', '--show');
    assert.match(deps.stdout, /no prediction yet/);
    assert.ok(
      admin.asked.every((asked) => asked === `GET ${DRAIN}`),
      '--show starts nothing',
    );
  });

  test('drain --cancel ends it', async () => {
    admin.answers.set(`DELETE ${DRAIN}`, { status: 204 });
    assert.equal(await deps.run('drain', 'nvas/nva-1', '--cancel'), 0);
    assert.match(deps.stdout, /gets new flows again/);
    assert.equal(await deps.run('drain', 'nvas/nva-1', '--cancel', '--watch'), 2);
  });

  test('drain --watch tells each phase until it is done, in lines where there is no terminal', async () => {
    const phases = [
      aDrain(),
      aDrain({ phase: 'ending' }),
      aDrain({ phase: 'done', flows: { tcp: 0, udp: 0 } }),
    ];
    answer(`POST ${DRAIN}`, aDrain(), 202);
    admin.answers.set(`GET ${DRAIN}`, () => ({ json: phases.shift() }));
    assert.equal(await watchToTheEnd(), 0);
    assert.deepEqual(deps.stdout.split('\n'), [
      'nvas/nva-1 draining: 12 flows left of 300, deadline in 9m00s',
      'nvas/nva-1 ending flows: 12 flows left of 300, deadline in 9m00s',
      'nvas/nva-1 drained: no flow is left, after 1m00s; nvas/nva-1 gets no new flows until --cancel',
      '',
    ]);
  });

  test('drain --watch shows it in place on a terminal', async () => {
    deps.terminal.isInteractive = true;
    const phases = [
      aDrain({ flows: { tcp: 5, udp: 0 } }),
      aDrain({ phase: 'done', flows: { tcp: 3, udp: 0 } }),
    ];
    answer(`POST ${DRAIN}`, aDrain(), 202);
    admin.answers.set(`GET ${DRAIN}`, () => ({ json: phases.shift() }));
    assert.equal(await watchToTheEnd(), 0);
    const [first, second, third] = deps.stdout.split('\r\u001b[J').slice(1);
    const height = (first ?? '').split('\n').length - 1;
    assert.ok(height > 4);
    assert.ok((first ?? '').endsWith(`\u001b[${height}A`), 'goes back up as many lines as it has written');
    assert.match(second ?? '', /5 flows left of 300/);
    assert.match(third ?? '', /3 flows left alone/);
  });

  test('drain --watch --json prints one status a line', async () => {
    const done = aDrain({ phase: 'done' });
    answer(`POST ${DRAIN}`, aDrain(), 202);
    answer(`GET ${DRAIN}`, done);
    assert.equal(await watchToTheEnd('--json'), 0);
    assert.deepEqual(
      deps.stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown),
      [aDrain(), done],
    );
  });

  for (const [what, stop] of [
    ['Ctrl-C', () => deps.signal('SIGINT')],
    ['a reader that leaves', () => deps.closeOutput()],
  ] as const) {
    test(`${what} ends --watch and leaves the drain running`, async () => {
      answer(`POST ${DRAIN}`, aDrain(), 202);
      admin.answers.set(`GET ${DRAIN}`, () => {
        setImmediate(stop);
        return { json: aDrain() };
      });
      assert.equal(await watchToTheEnd(), 0);
      assert.match(deps.stdout, /The drain continues; .*--show --watch.*--cancel/);
      assert.ok(!admin.asked.includes(`DELETE ${DRAIN}`));
      assert.deepEqual([deps.signalListeners, deps.outputListeners], [0, 0]);
    });
  }

  test('a drain that somebody else cancels ends --watch with exit code 1', async () => {
    answer(`POST ${DRAIN}`, aDrain(), 202);
    assert.equal(await watchToTheEnd(), 1);
    assert.match(deps.stdout, /no longer being drained: the drain was cancelled/);
  });
});
