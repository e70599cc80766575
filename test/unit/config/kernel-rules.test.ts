import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { configurationOf, only, withCode, type Example } from './example.js';
import {
  frontendWith,
  kernelExample,
  MODES,
  planeWith,
  poolWith,
  ruleWith,
  told,
  topWith,
  type Change,
  type Mode,
} from './kernel-example.js';

const both =
  (...changes: readonly Change[]): Change =>
  (raw) =>
    changes.forEach((change) => change(raw));
const ordinary = ruleWith({
  ...{ haPorts: false, protocol: 'tcp', frontendPort: 443, backendPort: 443 },
  listenPorts: undefined,
});
const found = (mode: Mode, change: Change, kernel: Record<string, unknown> = {}) =>
  told(kernelExample(mode, kernel, change));

describe('rules on the kernel data plane', () => {
  it('parseConfiguration() wants floatingIp to fit the mode', () => {
    const at = ['error LB_KERNEL_MODE rules[0].floatingIp'];
    assert.deepEqual(found('nat', ruleWith({ floatingIp: true })), at);
    assert.deepEqual(found('floating-l2', ruleWith({ floatingIp: false })), at);
    assert.deepEqual(found('floating-routed', ruleWith({ floatingIp: undefined })), at);
    const raw = kernelExample('next-hop', {}, ruleWith({ floatingIp: true }));
    assert.deepEqual(told(raw), ['note LB_KERNEL_NO_EFFECT rules[0].floatingIp']);
    assert.equal(configurationOf(raw).rules[0]?.floatingIp, false);
    assert.equal(configurationOf(kernelExample('floating-l2')).rules[0]?.floatingIp, true);
  });

  it('parseConfiguration() notes what backends need for floating IP, whatever Azure says', () => {
    for (const compat of ['none', 'azure']) {
      const finding = only(kernelExample('floating-l2', {}, topWith({ compat })), 'V18');
      assert.equal(`${finding.severity} ${finding.path}`, 'note rules[0].floatingIp');
      assert.match(`${finding.message}; ${finding.reason}`, /loopback interface; .*haports doctor/);
    }
    for (const mode of ['nat', 'next-hop'] as const)
      assert.deepEqual(withCode(kernelExample(mode), 'V18'), []);
  });

  it('parseConfiguration() changes ports with nat only', () => {
    const mapped = both(ordinary, ruleWith({ backendPort: 6443 }));
    assert.deepEqual(found('nat', mapped), []);
    assert.equal(configurationOf(kernelExample('nat', {}, mapped)).rules[0]?.portOffset, 6000);
    for (const mode of MODES.slice(1)) {
      assert.deepEqual(found(mode, mapped), ['error LB_KERNEL_MODE rules[0].backendPort']);
      assert.deepEqual(found(mode, ordinary), []);
      assert.deepEqual(found(mode, both(ordinary, ruleWith({ backendPort: 0 }))), []);
    }
  });

  it('parseConfiguration() wants wildcard frontends with next-hop, and nowhere else', () => {
    const at = ['error LB_KERNEL_MODE frontends[0].address'];
    assert.deepEqual(found('next-hop', frontendWith({ address: '10.0.0.1' })), at);
    for (const mode of ['nat', 'floating-l2', 'floating-routed'] as const) {
      assert.deepEqual(found(mode, frontendWith({ address: '0.0.0.0' })), at, mode);
    }
    const six = both(
      frontendWith({ address: 'fd00::1' }),
      poolWith({ backends: [{ address: 'fd00::11' }, { address: 'fd00::12' }] }),
    );
    assert.equal(only(kernelExample('next-hop', {}, six), 'LB_KERNEL_MODE').expected, '"::"');
    assert.deepEqual(found('nat', six), []);
  });

  it('parseConfiguration() takes both families beside each other', () => {
    const second: Change = (raw) => {
      raw.frontends.push({ name: 'hub6', address: '::' });
      raw.backendPools.push({ name: 'nvas6', backends: [{ address: 'fd00::1' }, { address: 'fd00::2' }] });
      raw.rules.push({ ...raw.rules[0], name: 'ha6', frontend: 'hub6', backendPool: 'nvas6' });
    };
    assert.deepEqual(found('next-hop', second), []);
  });

  it('parseConfiguration() refuses link-local addresses', () => {
    const frontend = both(
      frontendWith({ address: 'fe80::1%eth0' }),
      poolWith({ backends: [{ address: 'fd00::11' }, { address: 'fd00::12' }] }),
    );
    assert.deepEqual(found('nat', frontend), ['error LB_KERNEL_ADDRESS frontends[0].address']);
    const backend = both(
      frontendWith({ address: 'fd00::1' }),
      poolWith({ backends: [{ address: 'fd00::11' }, { address: 'fe80::12%eth0' }] }),
    );
    assert.deepEqual(found('nat', backend), ['error LB_KERNEL_ADDRESS backendPools[0].backends[1].address']);
  });

  it('parseConfiguration() refuses to cross address families', () => {
    const mixed = poolWith({ backends: [{ address: '10.0.1.1' }, { address: 'fd00::2' }] });
    for (const mode of MODES) {
      assert.deepEqual(found(mode, mixed), ['error LB_KERNEL_ADDRESS backendPools[0].backends[1].address']);
    }
  });

  it('parseConfiguration() wants idle timeouts in whole seconds', () => {
    const path = (holder: string, protocol: string) => `error LB_VALUE ${holder}[0].idleTimeout.${protocol}`;
    assert.deepEqual(found('nat', ruleWith({ idleTimeout: { tcp: '240500ms', udp: '30s' } })), [
      path('rules', 'tcp'),
    ]);
    assert.deepEqual(found('nat', frontendWith({ idleTimeout: { tcp: '5m', udp: '1001ms' } })), [
      path('frontends', 'udp'),
    ]);
    assert.deepEqual(found('nat', ruleWith({ idleTimeout: { tcp: '241000ms' } })), []);
  });

  it('parseConfiguration() refuses by name what changes what users get', () => {
    const cases: readonly (readonly [Change, string])[] = [
      [
        frontendWith({ proxyProtocol: { accept: 'v2', trustedSources: ['10.0.0.0/8'] } }),
        'frontends[0].proxyProtocol',
      ],
      [poolWith({ proxyProtocol: 'v2' }), 'backendPools[0].proxyProtocol'],
      [poolWith({ sourceAddresses: ['10.0.0.9'] }), 'backendPools[0].sourceAddresses'],
      [poolWith({ maxConnections: 7 }), 'backendPools[0].maxConnections'],
      [
        poolWith({ backends: [{ address: '10.0.1.1' }, { address: '10.0.1.2', maxConnections: 7 }] }),
        'backendPools[0].backends[1].maxConnections',
      ],
      [ruleWith({ udp: { perPacket: true } }), 'rules[0].udp.perPacket'],
      [ruleWith({ udp: { expectedResponses: 1 } }), 'rules[0].udp.expectedResponses'],
      [topWith({ limits: { tcpFlowsPerSource: 9 } }), 'limits.tcpFlowsPerSource'],
      [topWith({ limits: { udpFlowsPerSource: 9 } }), 'limits.udpFlowsPerSource'],
    ];
    for (const [change, path] of cases) {
      for (const mode of MODES) assert.deepEqual(found(mode, change), [`error LB_KERNEL_CANNOT ${path}`]);
      assert.match(
        only(kernelExample('nat', {}, change), 'LB_KERNEL_CANNOT').expected ?? '',
        /or kind "userspace"$/,
      );
      const elsewhere = kernelExample('nat', {}, both(change, topWith({ dataPlane: {} })));
      assert.deepEqual(withCode(elsewhere, 'LB_KERNEL_CANNOT'), []);
    }
    const bare = only(kernelExample('nat', {}, ruleWith({ udp: { perPacket: true } })), 'LB_KERNEL_CANNOT');
    assert.equal('reason' in bare, false);
    const caps = only(kernelExample('nat', {}, poolWith({ maxConnections: 7 })), 'LB_KERNEL_CANNOT');
    assert.match(caps.reason ?? '', /placed by its hash alone/);
    assert.deepEqual(found('nat', poolWith({ proxyProtocol: 'none', sourceAddresses: [] })), []);
    assert.deepEqual(found('nat', ruleWith({ udp: { perPacket: false } })), []);
  });

  it('parseConfiguration() notes what is written without effect', () => {
    const cases: readonly (readonly [Change, string])[] = [
      [poolWith({ sourcePorts: '1024-2047' }), 'backendPools[0].sourcePorts'],
      [poolWith({ connectTimeout: '1s' }), 'backendPools[0].connectTimeout'],
      [poolWith({ connectAttempts: 1 }), 'backendPools[0].connectAttempts'],
      [ruleWith({ tcp: { noDelay: false } }), 'rules[0].tcp.noDelay'],
      [ruleWith({ tcp: { keepAlive: '30s' } }), 'rules[0].tcp.keepAlive'],
      [ruleWith({ tcpReset: false }), 'rules[0].tcpReset'],
      [topWith({ limits: { embryonicFlows: 9 } }), 'limits.embryonicFlows'],
      [topWith({ limits: { embryonicTimeout: '9s' } }), 'limits.embryonicTimeout'],
      [topWith({ tableSize: 65_537 }), 'tableSize'],
      [planeWith({ workers: 1 }), 'dataPlane.workers'],
      [topWith({ shutdown: { deadline: '1m' } }), 'shutdown.deadline'],
    ];
    for (const [change, path] of cases) {
      assert.deepEqual(found('nat', change), [`note LB_KERNEL_NO_EFFECT ${path}`]);
    }
    assert.deepEqual(found('nat', topWith({ shutdown: { deadline: '1m' } }), { onStop: 'remove' }), []);
    assert.deepEqual(found('nat', ruleWith({ tcpReset: true })), []);
    // Each of the few source ports would be too few for the workers of the userspace data plane.
    assert.deepEqual(found('nat', both(poolWith({ sourcePorts: 1024 }), planeWith({ workers: 4 }))), [
      'note LB_KERNEL_NO_EFFECT backendPools[0].sourcePorts',
      'note LB_KERNEL_NO_EFFECT dataPlane.workers',
    ]);
  });

  it('parseConfiguration() notes that limits bound what is listed', () => {
    for (const key of ['tcpFlows', 'udpFlows']) {
      assert.deepEqual(found('nat', topWith({ limits: { [key]: 9 } })), [
        `note LB_KERNEL_LIMIT limits.${key}`,
      ]);
    }
  });

  it('parseConfiguration() takes what works by weights and tables alone', () => {
    assert.deepEqual(found('nat', poolWith({ slowStart: '1m', minimumHealthy: 2 })), []);
    const weights = [{ address: '10.0.1.1', weight: 3, priority: 1 }, { address: '10.0.1.2' }];
    assert.deepEqual(found('nat', poolWith({ backends: weights })), []);
    assert.deepEqual(found('nat', frontendWith({ allow: ['10.0.0.0/8'], deny: ['10.7.0.0/16'] })), []);
  });

  it('parseConfiguration() refuses answers from other ports with nat, and notes them elsewhere', () => {
    const asked = (answersFrom: string) => ruleWith({ udp: { answersFrom } });
    assert.deepEqual(found('nat', asked('address')), ['error LB_KERNEL_CANNOT rules[0].udp.answersFrom']);
    assert.deepEqual(found('nat', asked('endpoint')), []);
    for (const mode of MODES.slice(1)) {
      for (const word of ['address', 'endpoint']) {
        assert.deepEqual(found(mode, asked(word)), ['note LB_KERNEL_NO_EFFECT rules[0].udp.answersFrom']);
      }
    }
    const bySource = ruleWith({ distribution: 'source-ip' });
    assert.deepEqual(found('nat', bySource), ['note LB_KERNEL_ANSWERS rules[0].distribution']);
    assert.deepEqual(found('nat', both(bySource, asked('endpoint'))), []);
    assert.deepEqual(found('nat', both(bySource, ordinary)), []);
    assert.deepEqual(found('floating-l2', bySource), []);
    const tcp = ruleWith({ haPorts: false, protocol: 'tcp', frontendPort: 0 });
    assert.deepEqual(found('nat', both(bySource, tcp)), []);
    assert.deepEqual(configurationOf(kernelExample('nat', {}, bySource)).rules[0]?.udp, { perPacket: false });
  });

  it('parseConfiguration() notes symmetry where it is kept without, or not seen at all', () => {
    const symmetric = ruleWith({ symmetric: true });
    for (const mode of ['nat', 'floating-l2', 'floating-routed'] as const) {
      assert.deepEqual(found(mode, symmetric), ['note LB_KERNEL_NO_EFFECT rules[0].symmetric']);
    }
    assert.deepEqual(found('next-hop', symmetric), []);
    const reasonOf = (mode: Mode) => only(kernelExample(mode, {}, symmetric), 'LB_KERNEL_NO_EFFECT').reason;
    assert.match(reasonOf('nat') ?? '', /^Conntrack keeps both directions/);
    assert.match(reasonOf('floating-l2') ?? '', /do not pass through here$/);
  });

  it('parseConfiguration() says what rebalance means for TCP', () => {
    const policy = ruleWith({ flowPolicy: { probeDown: 'rebalance' } });
    const nat = only(kernelExample('nat', {}, policy), 'LB_REBALANCE_RESETS');
    assert.match(nat.reason ?? '', /conntrack/);
    for (const mode of ['floating-l2', 'floating-routed'] as const) {
      assert.deepEqual(found(mode, policy), ['note LB_REBALANCE_MOVES rules[0].flowPolicy']);
    }
    assert.deepEqual(found('next-hop', policy), ['note LB_REBALANCE_MOVES rules[0].flowPolicy']);
  });

  it('parseConfiguration() has nothing to add to drop, which drops', () => {
    const drop = ruleWith({ allDown: 'drop' });
    for (const mode of MODES) assert.deepEqual(found(mode, drop), []);
    assert.equal(
      withCode(kernelExample('nat', {}, both(drop, topWith({ dataPlane: {} }))), 'LB_DROP_ACCEPTS').length,
      1,
    );
  });

  it('parseConfiguration() notes what appliances need of the flow policy', () => {
    const at = 'note LB_KERNEL_APPLIANCE rules[0].flowPolicy';
    for (const flowPolicy of [undefined, 'azure', 'gcp', { probeDown: { tcp: 'persist' } }]) {
      assert.deepEqual(found('next-hop', ruleWith({ flowPolicy })), [at]);
    }
    const udp = ruleWith({
      haPorts: false,
      protocol: 'udp',
      frontendPort: 0,
      flowPolicy: 'azure',
      idleTimeout: {},
    });
    assert.deepEqual(found('next-hop', udp), []);
    for (const mode of ['nat', 'floating-l2', 'floating-routed'] as const) {
      assert.deepEqual(found(mode, ruleWith({ flowPolicy: 'azure' })), []);
    }
  });

  it('parseConfiguration() notes idle times that are shorter than those of appliances', () => {
    const idle = (tcp: string) => ruleWith({ idleTimeout: { tcp } });
    assert.deepEqual(found('next-hop', idle('59m')), ['note LB_KERNEL_IDLE rules[0].idleTimeout.tcp']);
    assert.deepEqual(found('next-hop', idle('1h')), []);
    assert.deepEqual(found('next-hop', ruleWith({ idleTimeout: undefined })), [
      'note LB_KERNEL_IDLE rules[0].idleTimeout.tcp',
    ]);
    assert.deepEqual(found('next-hop', frontendWith({ idleTimeout: { tcp: '10m' } })), [
      'note LB_KERNEL_IDLE frontends[0].idleTimeout.tcp',
    ]);
    const spokes = ['10.1.0.0/16', '10.2.0.0/16'];
    assert.deepEqual(found('next-hop', idle('4m'), { flowState: 'stateless', spokes }), []);
    assert.deepEqual(found('nat', idle('4m')), []);
  });

  it('parseConfiguration() notes that both directions need access without flow state', () => {
    const spokes = ['10.1.0.0/16', '10.2.0.0/16'];
    const stateless = { flowState: 'stateless', spokes };
    for (const key of ['allow', 'deny']) {
      const listed = frontendWith({ [key]: ['10.1.0.0/16'] });
      assert.deepEqual(found('next-hop', listed, stateless), [`note LB_KERNEL_ACCESS frontends[0].${key}`]);
      assert.deepEqual(found('next-hop', listed, { spokes }), []);
      assert.deepEqual(found('floating-l2', listed, { flowState: 'stateless' }), []);
    }
    assert.deepEqual(found('next-hop', frontendWith({ allow: [], deny: [] }), stateless), []);
  });

  it('parseConfiguration() lets wildcards and named rules of one family share ports with next-hop', () => {
    const named: Change = (raw: Example) => {
      raw.rules.push({
        ...{ name: 'dns', frontend: 'hub', backendPool: 'nvas', probe: 'alive', flowPolicy: 'firewall' },
        ...{ protocol: 'udp', frontendPort: 8053, backendPort: 8053 },
      });
    };
    assert.deepEqual(found('next-hop', named), ['note LB_YIELDS rules[0]']);
  });

  it('parseConfiguration() refuses more backends than marks', () => {
    const poolOf = (name: string, block: number, count: number) => ({
      name,
      backends: Array.from({ length: count }, (_, n) => ({ address: `10.${block}.${n >> 8}.${n & 255}` })),
    });
    const errors = (count: number) => {
      const raw = kernelExample('nat', { tableSize: 65_521 }, (all) => {
        all.backendPools = [poolOf('nvas', 200, 32_768), poolOf('others', 201, count)];
      });
      return told(raw).filter((line) => line.startsWith('error'));
    };
    assert.deepEqual(errors(32_767), []);
    assert.deepEqual(errors(32_768), ['error LB_VALUE backendPools']);
  });
});
