import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatPortSet } from '../../../src/model/ports.js';
import {
  brief as allFindings,
  configurationOf,
  example,
  haExample,
  only,
  withCode,
  type Example,
} from './example.js';

/** Findings, but for those on Azure's rules: here the probe is on a port that is balanced too. */
const brief = (raw: Example) => allFindings(raw).filter((line) => !/ V\d+ /.test(line));

/** All ports of 10.0.0.1, captured. */
function captured(capture: Record<string, unknown> = {}, change: (raw: Example) => void = () => undefined) {
  return haExample((raw) => {
    raw['dataPlane'] = { capture };
    raw.rules[0] = { ...raw.rules[0], listenPorts: '1-65535' };
    change(raw);
  });
}
const atAddress = (address: string) => (raw: Example) => {
  raw.frontends[0] = { ...raw.frontends[0], address };
};
const withPool = (change: Record<string, unknown>) => (raw: Example) => {
  Object.assign(raw.backendPools[0] ?? {}, change);
};
const withTop = (change: Record<string, unknown>) => (raw: Example) => {
  Object.assign(raw, change);
};
/** A rule that names ports of its own beside the HA-ports rule. */
const naming = (frontendPort: number | string) => (raw: Example) => {
  const { frontend, backendPool, probe } = raw.rules[0] ?? {};
  raw.rules.push({
    name: 'named',
    frontend,
    backendPool,
    probe,
    protocol: 'tcp',
    frontendPort,
    backendPort: 0,
  });
};
const frontends = (count: number) => (raw: Example) => {
  raw.frontends = Array.from({ length: count }, (_, index) => ({
    name: index === 0 ? 'hub' : `f${index}`,
    address: index % 2 === 0 ? `10.1.0.${index}` : `fd00::${index}`,
  }));
};
const portsOf = (raw: Example, rule = 0) => formatPortSet(configurationOf(raw).rules[rule]?.ports ?? []);

describe('capture', () => {
  it('parseConfiguration() has nothing to say about a captured HA-ports rule', () => {
    assert.deepEqual(brief(captured()), []);
    assert.deepEqual(brief(captured({}, atAddress('fd00::1'))), []);
  });

  it('parseConfiguration() fills in what capture leaves open', () => {
    const { capture } = configurationOf(captured());
    assert.ok(capture !== undefined);
    const { excludedPorts, block, ...rest } = capture;
    assert.deepEqual(rest, { udp: 'redirect', fallback: 'none', port: 61_000 });
    assert.deepEqual([formatPortSet(excludedPorts), block.text], ['22', '240.0.0.0/4']);
    assert.equal(configurationOf(example()).capture, undefined);
  });

  it('parseConfiguration() leaves excluded ports out of HA-ports rules, and the own ones', () => {
    assert.equal(portsOf(captured()), '1-21,23-65535');
    assert.equal(portsOf(captured({ excludedPorts: '22, 179, 60000-65535' })), '1-21,23-178,180-59999');
    const own = withTop({ metrics: { listen: '0.0.0.0:9902' } });
    assert.equal(portsOf(captured({}, own)), '1-21,23-9901,9903-65535');
    assert.equal(
      portsOf(haExample((raw) => (raw.rules[0] = { ...raw.rules[0], listenPorts: '20-25' }))),
      '20-25',
    );
  });

  it('parseConfiguration() refuses an HA-ports rule that has excluded ports only', () => {
    const raw = captured({}, (all) => (all.rules[0] = { ...all.rules[0], listenPorts: '22' }));
    const finding = only(raw, 'LB_CONFLICT');
    assert.equal(finding.path, 'rules[0].listenPorts');
    assert.match(finding.message, /less haports' own ports and excludedPorts$/);
  });

  it('parseConfiguration() gives a rule that names ssh its port, unless excluded by hand', () => {
    const raw = captured({}, naming(22));
    assert.deepEqual(brief(raw), []);
    assert.deepEqual([portsOf(raw, 0), portsOf(raw, 1)], ['1-21,23-65535', '22']);
    for (const port of [22, '20-30']) {
      const finding = only(captured({ excludedPorts: '22' }, naming(port)), 'LB_CONFLICT');
      assert.equal(finding.path, 'rules[1].frontendPort');
      assert.equal(finding.found, String(port));
      assert.equal(finding.message, 'Port 22 is among dataPlane.capture.excludedPorts');
    }
    assert.deepEqual(brief(captured({ excludedPorts: '22' }, naming(23))), ['note LB_YIELDS rules[0]']);
  });

  it('parseConfiguration() warns of captured ssh', () => {
    const finding = only(captured({ excludedPorts: '179' }), 'LB_CAPTURE_SSH');
    assert.equal(`${finding.severity} ${finding.path}`, 'warning dataPlane.capture.excludedPorts');
    assert.equal(finding.found, '179');
    assert.match(finding.reason ?? '', /ssh to 10\.0\.0\.1 \(frontend "hub"\)/);
    const high = (raw: Example) => (raw.rules[0] = { ...raw.rules[0], listenPorts: '1024-65535' });
    assert.deepEqual(brief(captured({ excludedPorts: '2000' }, high)), []);
    assert.deepEqual(brief(captured({ excludedPorts: '20-30' })), []);
  });

  it('parseConfiguration() wants each captured address by name', () => {
    for (const address of ['0.0.0.0', '::']) {
      const finding = only(captured({}, atAddress(address)), 'LB_CAPTURE_WILDCARD');
      assert.equal(`${finding.severity} ${finding.path}`, 'error frontends[0].address');
      assert.equal(finding.found, `"${address}"`);
      assert.match(finding.expected ?? '', /a frontend for each address/);
    }
    assert.deepEqual(withCode(haExample(atAddress('0.0.0.0')), 'LB_CAPTURE_WILDCARD'), []);
  });

  it('parseConfiguration() refuses link-local IPv6 frontends', () => {
    const finding = only(captured({}, atAddress('fe80::1%eth0')), 'LB_CAPTURE_ADDRESS');
    assert.equal(`${finding.severity} ${finding.path}`, 'error frontends[0].address');
    assert.match(finding.reason ?? '', /by address alone/);
  });

  it('parseConfiguration() warns of captured loopback, and notes loopback addresses that nobody uses', () => {
    const told = (address: string) => withCode(captured({}, atAddress(address)), 'LB_CAPTURE_LOOPBACK');
    assert.deepEqual(told('127.0.0.1'), ['warning LB_CAPTURE_LOOPBACK frontends[0].address']);
    assert.deepEqual(told('::1'), ['warning LB_CAPTURE_LOOPBACK frontends[0].address']);
    assert.deepEqual(told('127.0.0.9'), ['note LB_CAPTURE_LOOPBACK frontends[0].address']);
    assert.deepEqual(told('128.0.0.1'), []);
    const narrow = example((raw) => {
      raw['dataPlane'] = { capture: {} };
      atAddress('127.0.0.1')(raw);
    });
    assert.deepEqual(withCode(narrow, 'LB_CAPTURE_LOOPBACK'), [], 'a named port is meant');
  });

  it('parseConfiguration() refuses addresses that stand for ports', () => {
    const block = { block: '10.64.0.0/10' };
    const cases: readonly (readonly [string, (raw: Example) => void])[] = [
      ['frontends[0].address', atAddress('10.64.0.1')],
      ['frontends[0].address', atAddress('fd68:6170:6f72:7473:1::1')],
      ['backendPools[0].backends[0].address', withPool({ backends: [{ address: '10.127.0.1' }] })],
      ['backendPools[0].sourceAddresses[1]', withPool({ sourceAddresses: ['10.0.0.9', '10.64.0.9'] })],
      [
        'backendPools[0].backends[0].floatingAddresses.hub',
        withPool({ backends: [{ address: '10.9.0.1', floatingAddresses: { hub: '10.65.0.1' } }] }),
      ],
      [
        'probes[0].sourceAddress',
        (raw) => (raw.probes[0] = { ...raw.probes[0], sourceAddress: '10.65.0.1' }),
      ],
      ['metrics.listen', withTop({ metrics: { listen: '10.65.0.1:9902' } })],
      ['admin.http', withTop({ admin: { http: '[fd68:6170:6f72:7473::1]:9901' } })],
    ];
    for (const [path, change] of cases) {
      const expected = [`error LB_CAPTURE_ADDRESS ${path}`];
      assert.deepEqual(withCode(captured(block, change), 'LB_CAPTURE_ADDRESS'), expected);
    }
    const beside = captured(block, atAddress('10.128.0.1'));
    assert.deepEqual(brief(beside), ['note LB_CAPTURE_BLOCK dataPlane.capture.block']);
    assert.deepEqual(brief(captured({}, atAddress('fd68:6170:6f72:7474::1'))), []);
  });

  it('parseConfiguration() refuses blocks that cannot stand for ports', () => {
    for (const block of [
      ...['fd00::/8', '0.0.0.0/0', '128.0.0.0/3', '10.0.0.0/17', '10.0.0.1'],
      ...['127.0.0.0/8', '0.0.0.0/8', '255.0.0.0/8', '224.0.0.0/4', '239.0.0.0/16'],
    ]) {
      const found = withCode(captured({ block }), 'LB_VALUE');
      assert.deepEqual(found, ['error LB_VALUE dataPlane.capture.block'], block);
    }
    for (const block of ['240.0.0.0/4', '250.0.0.0/8', '241.7.0.0/16']) {
      assert.deepEqual(brief(captured({ block })), [], block);
    }
    const finding = only(captured({ block: '172.16.0.0/12' }), 'LB_CAPTURE_BLOCK');
    assert.equal(finding.severity, 'note');
    assert.equal(finding.found, '"172.16.0.0/12"');
  });

  it('parseConfiguration() refuses more frontends than the block has room for', () => {
    const told = (count: number, block: string) =>
      withCode(captured({ block }, frontends(count)), 'LB_CAPTURE_BLOCK');
    const error = ['error LB_CAPTURE_BLOCK dataPlane.capture.block'];
    assert.deepEqual(told(1, '240.0.0.0/16'), []);
    assert.deepEqual(told(2, '240.0.0.0/16'), error);
    assert.deepEqual(told(16, '240.0.0.0/12'), []);
    assert.deepEqual(told(17, '240.0.0.0/12'), error);
    const finding = only(captured({ block: '240.0.0.0/16' }, frontends(3)), 'LB_CAPTURE_BLOCK');
    assert.equal(finding.message, 'The block has room for 1 frontend, not for 3');
  });

  it('parseConfiguration() keeps the private ports free, for each worker one', () => {
    const told = (port: number, workers: number, change?: (raw: Example) => void) =>
      withCode(
        captured({ port }, (raw) => {
          Object.assign(raw['dataPlane'] as object, { workers });
          change?.(raw);
        }),
        'LB_CAPTURE_PORT',
      );
    const atPort = ['error LB_CAPTURE_PORT dataPlane.capture.port'];
    const metrics = withTop({ metrics: { listen: '127.0.0.1:61003' } });
    assert.deepEqual(told(61_000, 3, metrics), []);
    assert.deepEqual(told(61_000, 4, metrics), ['error LB_CAPTURE_PORT metrics.listen']);
    assert.deepEqual(told(61_003, 0, metrics), ['error LB_CAPTURE_PORT metrics.listen']);
    const sources = withPool({ sourcePorts: '20000-29999' });
    assert.deepEqual(told(19_999, 1, sources), []);
    assert.deepEqual(told(19_999, 2, sources), atPort);
    assert.deepEqual(told(29_999, 1, sources), atPort);
    assert.deepEqual(told(40_000, 1), atPort, 'the default of sourcePorts');
    assert.deepEqual(told(40_000, 1, sources), ['warning LB_CAPTURE_PORT dataPlane.capture.port']);
    assert.deepEqual(told(65_471, 64), [], 'ends at 65534');
    assert.deepEqual(withCode(captured({ port: 65_472 }), 'LB_VALUE'), [
      'error LB_VALUE dataPlane.capture.port',
    ]);
  });

  it('parseConfiguration() refuses any free port where capture takes them all', () => {
    const told = (listen: string, change: (raw: Example) => void = () => undefined) =>
      withCode(
        captured({}, (raw) => {
          withTop({ metrics: { listen } })(raw);
          change(raw);
        }),
        'LB_CAPTURE_PORT',
      );
    assert.deepEqual(told('10.0.0.1:0'), ['error LB_CAPTURE_PORT metrics.listen']);
    assert.deepEqual(told('0.0.0.0:0'), ['error LB_CAPTURE_PORT metrics.listen']);
    assert.deepEqual(told('127.0.0.1:0'), []);
    const admin = withTop({ admin: { http: '127.0.0.1:0' } });
    assert.deepEqual(
      told('127.0.0.1:9902', (raw) => {
        admin(raw);
        atAddress('127.0.0.1')(raw);
      }),
      ['error LB_CAPTURE_PORT admin.http'],
    );
  });

  it('parseConfiguration() does not ask for source addresses where nothing is bound', () => {
    assert.deepEqual(withCode(captured(), 'LB_SOURCE_NEEDED'), []);
    assert.equal(withCode(captured({ fallback: 'bind' }), 'LB_SOURCE_NEEDED').length, 2);
  });

  it('parseConfiguration() notes that few ports need no capture', () => {
    const told = (listenPorts: string) =>
      withCode(
        captured({}, (raw) => (raw.rules[0] = { ...raw.rules[0], listenPorts })),
        'LB_CAPTURE_FEW',
      );
    assert.deepEqual(told('8000-8014'), ['note LB_CAPTURE_FEW dataPlane.capture']);
    assert.deepEqual(told('8000-8015'), []);
  });

  it('parseConfiguration() refuses the key that chose tproxy, and says what to use', () => {
    const finding = only(captured({ mode: 'tproxy' }), 'LB_UNKNOWN_KEY');
    assert.equal(`${finding.severity} ${finding.path}`, 'error dataPlane.capture.mode');
    assert.equal(finding.message, 'Key "mode" no longer exists');
    assert.match(finding.expected ?? '', /in place of tproxy use the kernel data plane/);
  });

  it('parseConfiguration() takes no wrong keys and words', () => {
    assert.deepEqual(withCode(captured({ udp: 'nat' }), 'LB_VALUE'), [
      'error LB_VALUE dataPlane.capture.udp',
    ]);
    assert.deepEqual(withCode(captured({ excludePorts: 1 }), 'LB_UNKNOWN_KEY'), [
      'error LB_UNKNOWN_KEY dataPlane.capture.excludePorts',
    ]);
  });
});
