import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Finding } from '../../src/config/findings.js';
import { ConfigFile } from '../support/config-file.js';
import { eventually } from '../support/deadline.js';
import { haExample, type Change } from '../support/example.js';
import { haportsHere } from '../support/command-here.js';
import { haports, type CommandResult, type HaportsProcess } from '../support/haports-process.js';
import { labConfig } from '../support/lab-config.js';
import { logEvents, splitLog } from '../support/log-lines.js';
import { loopbackBlock } from '../support/loopback.js';
import { sumMetric } from '../support/metrics-text.js';
import { useService, useServiceOfProcesses } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

const host = loopbackBlock();
const PORTS = '7000-7003';
const [NVA_1, NVA_2] = [1, 2].map((n) => ({ name: `nva-${n}`, address: host(10 + n) }));

const HERE = { dataPlane: { workers: 0 } };

/** A configuration with nothing wrong, but for what a test changes in it. */
const configuration = ({ rule, ...change }: Change = {}) =>
  haExample({
    frontend: { address: host(1) },
    probe: { protocol: 'tcp' },
    pool: { backends: [NVA_1, NVA_2] },
    ...change,
    rule: { name: 'ha-ports', listenPorts: PORTS, ...rule },
  });

interface Fault {
  readonly name: string;
  readonly fault: Change;
  /** All of the one line after `file:line:column: error `. */
  readonly says: string;
  /** The words in the text that the line and column point at. */
  readonly at: string;
}

/** One of each kind; test/unit/config has the others. */
const FAULTS: readonly Fault[] = [
  {
    name: 'a text where a truth value belongs',
    fault: { rule: { symmetric: 'yes' } },
    says: 'LB_TYPE rules[0].symmetric: Expected true or false, found "yes"',
    at: '"yes"',
  },
  {
    name: 'an unknown key',
    fault: { rule: { idleTimout: { tcp: '4m' } } },
    says: 'LB_UNKNOWN_KEY rules[0].idleTimout: Unknown key "idleTimout"; did you mean "idleTimeout"',
    at: '"idleTimout"',
  },
  {
    name: 'a backend name given twice',
    fault: { pool: { backends: [NVA_1, { ...NVA_2, name: 'nva-1' }] } },
    says:
      'LB_DUPLICATE_NAME backendPools[0].backends[1].name: Name "nva-1" is already that of a backend of pool "nvas", ' +
      'each must have its own, expected another name',
    at: `"nva-1",\n          "address": "${host(12)}"`,
  },
  {
    name: 'a backend address given twice',
    fault: { pool: { backends: [NVA_1, { ...NVA_2, address: `::ffff:${host(11)}` }] } },
    says:
      `LB_DUPLICATE_ADDRESS backendPools[0].backends[1].address: Address ${host(11)} is already a backend of ` +
      `pool "nvas", found "::ffff:${host(11)}", ` +
      'expected each address once in a pool (Pool and address are the identity of a backend)',
    at: `"::ffff:${host(11)}"`,
  },
  {
    name: 'a rule for a pool that is not there',
    fault: { rule: { backendPool: 'nva' } },
    says: 'LB_UNKNOWN_NAME rules[0].backendPool: There is no backend pool "nva"; did you mean "nvas", expected one of nvas',
    at: '"nva",',
  },
  {
    name: 'port 70000 in a set',
    fault: { rule: { listenPorts: '22,70000' } },
    says:
      'LB_VALUE rules[0].listenPorts: Expected ports from 1 to 65535 such as "443", "8000-8099" or ' +
      '"22, 80, 8000-8099", found "22,70000"',
    at: '"22,70000"',
  },
  {
    name: 'a backend on this machine behind a wildcard frontend',
    fault: { frontend: { address: '0.0.0.0' }, pool: { backends: [NVA_1] } },
    says:
      `LB_LOOP backendPools[0].backends[0].address: Rule "ha-ports" would send tcp and udp port ${PORTS} of ` +
      `${host(11)} into the listener of rule "ha-ports", expected an address and port where haports itself does ` +
      'not listen (A flow that comes back to its own listener runs in circles until everything is used up)',
    at: `"${host(11)}"`,
  },
];

/** The line and column of a place in a text, counted the slow way. */
function placeOf(text: string, words: string): string {
  const index = text.lastIndexOf(words);
  assert.ok(index >= 0, `the text does not hold ${words}`);
  const before = text.slice(0, index).split('\n');
  return `${before.length}:${before.at(-1)!.length + 1}`;
}

/** The one line that a failed command leaves on stderr, apart from the log. */
function onlyLine(result: CommandResult): string {
  const { lines, rest } = splitLog(result.stderr);
  assert.equal(rest.length, 1, `not one line:\n${result.stderr}`);
  assert.deepEqual(
    // Whether descriptors suffice for all flows is the machine's.
    lines.filter(({ level, event }) => level !== 'info' && event !== 'flows-limited'),
    [],
    'the log tells of more than the start',
  );
  assert.doesNotMatch(result.stderr, /^\s+at /m, 'a stack trace');
  return rest[0]!;
}

async function withConfig<T>(content: string | object, use: (file: ConfigFile) => Promise<T>): Promise<T> {
  const file = await ConfigFile.write(content);
  try {
    return await use(file);
  } finally {
    await file.remove();
  }
}

void describe('a bad configuration is refused with one line and exit code 2', () => {
  void test('the configuration without a fault is fine', () =>
    withConfig(configuration(), async ({ path }) => {
      const result = await haportsHere(['check', '-c', path]);
      assert.deepEqual(result, { code: 0, stdout: `${path} can be used: no findings\n`, stderr: '' });
    }));

  for (const [index, { name, fault, says, at }] of FAULTS.entries()) {
    // One by a process of its own.
    const run = index === 0 ? haports : haportsHere;
    void test(`${name}: ${says.split(':')[0]}`, () =>
      withConfig(configuration(fault), async ({ path }) => {
        const result = await run(['run', '-c', path]);
        const place = placeOf(await readFile(path, 'utf8'), at);
        assert.equal(onlyLine(result), `${path}:${place}: error ${says}`);
        assert.equal(result.code, 2);
        assert.equal(result.stdout, '');
      }));
  }

  void test('broken JSON', () =>
    withConfig('{\n  "frontends": [\n    { "name" "hub" }\n  ]\n}\n', async ({ path }) => {
      const result = await haportsHere(['run', '-c', path]);
      const says = 'Broken JSON: colon expected, found "\\"hub\\""';
      assert.equal(onlyLine(result), `${path}:3:14: error LB_CONFIG_SYNTAX: ${says}`);
      assert.equal(result.code, 2);
    }));

  void test('a file that is not there, and a folder', () =>
    withConfig({}, async ({ folder }) => {
      const missing = `${folder}/none.json`;
      for (const [path, why] of [
        [missing, `ENOENT: no such file or directory, open '${missing}'`],
        [folder, 'EISDIR: illegal operation on a directory, read'],
      ] as const) {
        const result = await haportsHere(['run', '-c', path]);
        const message = `Configuration file "${path}" cannot be read: ${why}`;
        assert.equal(onlyLine(result), `${path}: error LB_CONFIG_UNREADABLE: ${message}`);
        assert.equal(result.code, 2);
      }
    }));

  void test('check --json tells every finding at once, as JSON', () =>
    withConfig(
      configuration({
        frontend: { address: host(1), adress: 'x' },
        pool: { backends: [{ ...NVA_1, weight: -1 }, NVA_2] },
        rule: { backendPool: 'nva', listenPorts: '7003-7000' },
        nonsense: 1,
      }),
      async ({ path }) => {
        const result = await haportsHere(['check', '--json', '-c', path]);
        assert.equal(result.code, 2);
        assert.equal(result.stderr, '');
        const report = JSON.parse(result.stdout) as { ok: boolean; findings: Finding[] };
        assert.equal(report.ok, false);
        const errors = report.findings.filter(({ severity }) => severity === 'error');
        assert.deepEqual(
          errors.map((finding) => `${finding.code} ${finding.path}`),
          [
            'LB_UNKNOWN_KEY frontends[0].adress',
            'LB_VALUE backendPools[0].backends[0].weight',
            'LB_UNKNOWN_NAME rules[0].backendPool',
            'LB_VALUE rules[0].listenPorts',
            'LB_UNKNOWN_KEY nonsense',
          ],
        );
        const lines = report.findings.map(({ line = 0 }) => line);
        assert.deepEqual(
          lines,
          lines.toSorted((a, b) => a - b),
        );
      },
    ));
});

void describe('a bad command line is refused with exit code 2', () => {
  for (const [args, says] of [
    ['fly', "error: unknown command 'fly'"],
    ['run --fast', "error: unknown option '--fast'"],
    ['run -c', "error: option '-c, --config <file>' argument missing"],
    ['check extra', "error: too many arguments for 'check'. Expected 0 arguments but got 1."],
    ['explain tcp', "error: missing required argument 'source'"],
  ] as const) {
    void test(`haports ${args}`, async () => {
      const { code, stdout, stderr } = await haportsHere(args.split(' '));
      assert.equal(stderr.split('\n')[0], says);
      assert.match(stderr, /\(haports --help shows all commands\)\n$/);
      assert.equal(code, 2);
      assert.equal(stdout, '');
    });
  }

  void test('haports --version tells it on stdout', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { readonly version: string };
    assert.deepEqual(await haportsHere(['--version']), { code: 0, stdout: `${version}\n`, stderr: '' });
  });

  void test('a flow that cannot be explained', () =>
    withConfig(configuration(), async ({ path }) => {
      const result = await haportsHere(['explain', 'tcp', '192.0.2.7:1', 'hub:7000', '-c', path]);
      const must = 'must be an address and port such as 192.0.2.7:40000 or [fd00::7]:40000';
      assert.equal(onlyLine(result), `haports: LB_USAGE: "destination" is "hub:7000", ${must}`);
      assert.equal(result.code, 2);
      assert.equal(result.stdout, '');
    }));
});

void describe('what the machine refuses', () => {
  const servers: Server[] = [];
  const occupy = (port: number, address = host(1)): Promise<void> =>
    new Promise((resolve, reject) => {
      const server = createServer((socket) => socket.destroy());
      servers.push(server.once('error', reject).listen(port, address, () => resolve()));
    });

  after(() => {
    for (const server of servers) server.close();
  });

  const failsToStart = (configuration: object, user = {}): Promise<CommandResult> =>
    withConfig(configuration, ({ path }) => haports(['run', '-c', path], 20_000, user));

  describe('one port of a set in use', () => {
    const service = useService({ ports: [7100, 7103], nvas: 1, workers: 1 }, { isStarted: false });

    test('is told once, the rest serves', async () => {
      for (const port of [7101, 7102]) await occupy(port, service.host(1));
      const balancer = await service.start();
      const warnings = logEvents(balancer.log(), 'listen-failed');
      assert.equal(warnings.length, 1);
      assert.equal(warnings[0]!.level, 'warn');
      assert.equal(warnings[0]!.msg, 'Cannot listen on 2 of 8 ports, first tcp 7101-7102 (EADDRINUSE)');
      assert.equal((await service.tcp(3)).backend, 'nva-1');
      const metrics = await balancer.metrics();
      assert.equal(sumMetric(metrics, 'haports_listeners_wanted', { frontend: 'hub' }), 8);
      assert.equal(sumMetric(metrics, 'haports_listeners_open', { frontend: 'hub' }), 6);
      assert.equal(sumMetric(metrics, 'haports_data_path_availability_ratio', { frontend: 'hub' }), 0.75);
      assert.equal(await balancer.stop(), 0);
    });
  });

  const named = { haPorts: undefined, listenPorts: undefined, protocol: 'tcp' };
  for (const [what, occupied, options, says] of [
    ...[0, 1].map(
      (workers) =>
        [
          `every port in use, with ${workers} workers`,
          7200 + workers,
          {
            rule: { ...named, frontendPort: 7200 + workers, backendPort: 7200 },
            top: { dataPlane: { workers } },
          },
          `Cannot listen on any of 1 ports, first tcp ${host(1)} port ${7200 + workers}: EADDRINUSE`,
        ] as const,
    ),
    [
      'an address that this machine does not have',
      undefined,
      { top: { ...HERE, frontends: [{ name: 'hub', address: '192.0.2.1' }] } },
      'Cannot listen on any of 8 ports, first tcp 192.0.2.1 port 7000: EADDRNOTAVAIL',
    ],
    [
      'the metrics port in use',
      9903,
      { top: { ...HERE, metrics: { listen: `${host(1)}:9903` } } },
      `Cannot listen for metrics on ${host(1)}:9903 (EADDRINUSE): "metrics.listen" must be a free address and ` +
        'port of this machine',
    ],
  ] as const) {
    void test(`${what}: one line and exit code 1`, async () => {
      if (occupied !== undefined) await occupy(occupied);
      const result = await failsToStart(labConfig(host, { listenPorts: PORTS, ...options }));
      assert.equal(onlyLine(result), `haports: LB_LISTEN_FAILED: ${says}`);
      assert.equal(result.code, 1);
    });
  }

  void test('a flow log that cannot be opened: one line and exit code 2, since the path is in the configuration', () =>
    withConfig({}, async ({ folder }) => {
      for (const [file, errno] of [
        [`${folder}/none/flows.ndjson`, 'ENOENT'],
        [folder, 'EISDIR'],
      ] as const) {
        const result = await failsToStart(
          labConfig(host, { listenPorts: PORTS, top: { ...HERE, flowLog: { file } } }),
        );
        assert.equal(
          onlyLine(result),
          `haports: LB_CONFIG_INVALID: Cannot open flow log "${file}" (${errno}): it must be a file that can be appended to`,
        );
        assert.equal(result.code, 2);
      }
    }));

  void test('no permission for a port: one line and exit code 1', async (t) => {
    const first = Number(await readFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
    if (first <= 80) {
      t.skip(`everybody may bind port 80 here: net.ipv4.ip_unprivileged_port_start is ${first}`);
      return;
    }
    const user = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    const reads = ['-c', `test -r ${process.cwd()}/dist/main.js`];
    if (spawnSync('sh', reads, user).status !== 0) {
      t.skip(`user 65534 cannot read ${process.cwd()}/dist`);
      return;
    }
    const result = await failsToStart(labConfig(host, { listenPorts: '80,81', top: HERE }), user);
    assert.equal(
      onlyLine(result),
      `haports: LB_LISTEN_FAILED: Cannot listen on any of 4 ports, first tcp ${host(1)} port 80: EACCES`,
    );
    assert.equal(result.code, 1);
  });
});

void describe('bad traffic and lost backends disturb nobody else', () => {
  const service = useServiceOfProcesses({ ports: [7000, 7003] }, { isStarted: false });
  const { nvas } = service;
  /** Clients at this address must send a PROXY header. */
  const PROXY = { ...service.target(0), localAddress: service.host(77) };
  let balancer: HaportsProcess;

  before(async () => {
    const proxyProtocol = {
      ...{ accept: 'any', trustedSources: [`${PROXY.localAddress}/32`] },
      headerTimeout: '500ms',
    };
    const frontends = [{ name: 'hub', address: service.host(1), proxyProtocol }];
    balancer = await service.start({ top: { frontends } });
  });

  void test('starts that have failed on the same ports have left nothing behind', () => {
    assert.deepEqual(logEvents(balancer.log(), 'listen-failed'), []);
  });

  const drops = async (reason: string): Promise<number> =>
    sumMetric(await balancer.metrics(), 'haports_drops_total', { reason });

  void test('garbage instead of a PROXY header: the client is reset, the drop counted, nobody else disturbed', async () => {
    const flows = await service.openFlows(12);
    const garbage: readonly (string | Buffer)[] = [
      'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
      'PROXY TCP4 192.0.2.1\r\n',
      'PROXY TCP4 192.0.2.1 192.0.2.2 70000 80\r\n',
      'PROXY TCP9 192.0.2.1 192.0.2.2 1 80\r\n',
      `PROXY TCP4 ${'1'.repeat(200)}\r\n`,
      Buffer.concat([Buffer.from('0d0a0d0a000d0a515549540a', 'hex'), Buffer.from([0x31, 0x11, 0xff, 0xff])]),
      Buffer.alloc(4096, 0),
      Buffer.from('0d0a0d0a000d0a515549540b', 'hex'),
    ];
    const before = await drops('bad-proxy-header');
    for (const bytes of garbage) {
      const client = await TcpClient.connect(PROXY);
      client.socket.write(bytes);
      assert.equal(await client.ended(), 'reset', `after ${JSON.stringify(bytes.toString('latin1'))}`);
      assert.equal(client.received, '');
      client.destroy();
    }
    // One that never says a word is no better.
    const silent = await TcpClient.connect(PROXY);
    assert.equal(await silent.ended(), 'reset');
    assert.equal((await drops('bad-proxy-header')) - before, garbage.length + 1);

    const honest = await TcpClient.connect(PROXY);
    honest.socket.write('PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n');
    assert.match(await honest.backend(), /^nva-\d$/);
    honest.destroy();
    for (const { client, backend } of [...flows.tcp, ...flows.udp]) {
      assert.equal(await client.backend(), backend);
    }
  });

  void test('a backend that vanishes during traffic ends its own flows and no others, and new flows avoid it', async () => {
    const { tcp, udp } = await service.openFlows(60);
    const lost = tcp.filter(({ backend }) => backend === 'nva-2');
    assert.ok(lost.length > 0, 'no flow to lose');
    await nvas[1]!.kill();
    for (const { client, backend } of tcp) {
      if (backend === 'nva-2') assert.notEqual(await client.ended(), 'open');
      else assert.equal(await client.backend(), backend);
    }
    const after = await Promise.all(
      udp.map(async ({ client, backend }) => ({ backend, now: await client.backend() })),
    );
    for (const { backend, now } of after) {
      if (backend === 'nva-2') assert.match(now ?? '', /^nva-[13]$/);
      else assert.equal(now, backend);
    }
    for (const flow of (await service.newFlows()).keys()) assert.match(flow, /^(tcp|udp) nva-[13]$/);
    const metrics = await balancer.metrics();
    assert.ok(sumMetric(metrics, 'haports_connect_failures_total', { backend: 'nva-2' }) > 0);
    assert.ok(sumMetric(metrics, 'haports_connect_retries_total', { backend: 'nva-2' }) > 0);
    // What the backend ended with FIN ends when its client closes too.
    for (const { client } of lost) client.destroy();
    await eventually(
      async () =>
        sumMetric(await balancer.metrics(), 'haports_flows_active', { backend: 'nva-2', protocol: 'tcp' }) ===
        0,
      5000,
      'no TCP flow to be left on the lost backend',
    );
  });
});
