import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { configurationFromJson, configurationToJson } from '../../../src/api/configuration-json.js';
import { formatPortSet } from '../../../src/model/ports.js';
import { brief, configurationOf, example, only, withCode, type Example } from './example.js';
import {
  frontendWith,
  kernelExample,
  MODES,
  planeWith,
  poolWith,
  ruleWith,
  told,
  topWith,
  type Mode,
} from './kernel-example.js';

const portsOf = (raw: Example) => formatPortSet(configurationOf(raw).rules[0]?.ports ?? []);
const oneBackend = (backend: Record<string, unknown>) =>
  poolWith({ backends: [{ address: '10.0.1.1', ...backend }, { address: '10.0.1.2' }] });

describe('kernel data plane', () => {
  for (const mode of MODES) {
    it(`parseConfiguration() has nothing against an HA-ports rule with mode ${mode}`, () => {
      assert.deepEqual(told(kernelExample(mode)), []);
      configurationOf(kernelExample(mode));
    });
  }

  it('parseConfiguration() fills in what the options leave open', () => {
    const raw = kernelExample('nat', {}, (all) => (all['dataPlane'] = { kind: 'kernel' }));
    const { kernel, tableSize, workers, capture } = configurationOf(raw);
    assert.deepEqual(kernel, {
      ...{ mode: 'nat', returnPath: 'route', flowState: 'pinned', spokes: [] },
      ...{ manageSysctls: false, onStop: 'keep' },
    });
    assert.deepEqual([tableSize, workers, capture], [4093, 0, undefined]);
    assert.equal(configurationOf(example()).kernel, undefined);
  });

  it('parseConfiguration() takes every option over', () => {
    const spokes = ['10.1.0.0/16', '10.2.0.0/16'];
    const given = { interface: 'eth0.7', flowState: 'stateless', manageSysctls: true, onStop: 'remove' };
    const raw = kernelExample('next-hop', { ...given, spokes, tableSize: 65_521 });
    assert.deepEqual(told(raw), []);
    const { kernel, tableSize } = configurationOf(raw);
    assert.deepEqual(
      { ...kernel, spokes: kernel?.spokes.map(({ text }) => text) },
      {
        ...{ mode: 'next-hop', returnPath: 'route', ...given, spokes },
      },
    );
    assert.equal(tableSize, 65_521);
    const configuration = configurationOf(raw);
    assert.deepEqual(configurationFromJson(configurationToJson(configuration)), configuration);
  });

  it('parseConfiguration() wants a prime of at most 16 bits for the size of a table', () => {
    for (const tableSize of [250, 4094, 65_537, 'x']) {
      const [finding] = brief(kernelExample('nat', { tableSize }));
      assert.match(finding ?? '', /^error LB_(VALUE|TYPE) dataPlane\.kernel\.tableSize$/, String(tableSize));
    }
    configurationOf(kernelExample('nat', { tableSize: 251 }));
  });

  it('parseConfiguration() measures pools against the table in the kernel', () => {
    const many = poolWith({
      backends: Array.from({ length: 42 }, (_, index) => ({ address: `10.0.1.${index + 1}` })),
    });
    assert.deepEqual(told(kernelExample('nat', {}, many)), [
      'warning LB_SMALL_TABLE backendPools[0].backends',
    ]);
    assert.deepEqual(told(kernelExample('nat', { tableSize: 4201 }, many)), []);
  });

  it('parseConfiguration() takes no wrong keys and words, and says nothing else then', () => {
    const wrong: readonly (readonly [Record<string, unknown>, string])[] = [
      [{ mode: 'dsr' }, 'error LB_VALUE dataPlane.kernel.mode'],
      [{ returnPath: 'tunnel' }, 'error LB_VALUE dataPlane.kernel.returnPath'],
      [{ interface: 'a b' }, 'error LB_VALUE dataPlane.kernel.interface'],
      [{ interface: 'sixteen-letters-' }, 'error LB_VALUE dataPlane.kernel.interface'],
      [{ flowState: 'none' }, 'error LB_VALUE dataPlane.kernel.flowState'],
      [{ spokes: ['10.0.0.1/8'] }, 'error LB_VALUE dataPlane.kernel.spokes[0]'],
      [{ manageSysctls: 'yes' }, 'error LB_TYPE dataPlane.kernel.manageSysctls'],
      [{ onStop: 'leave' }, 'error LB_VALUE dataPlane.kernel.onStop'],
      [{ retrunPath: 'route' }, 'error LB_UNKNOWN_KEY dataPlane.kernel.retrunPath'],
    ];
    for (const [kernel, finding] of wrong) {
      // floatingIp would be an error with mode nat, and without floatingAddresses on the userspace data plane.
      const raw = kernelExample('floating-routed', kernel);
      assert.deepEqual(brief(raw), [finding]);
    }
  });

  it('parseConfiguration() warns of kernel options on the userspace data plane', () => {
    const raw = example((all) => (all['dataPlane'] = { kernel: { mode: 'floating-l2' } }));
    const finding = only(raw, 'LB_NO_EFFECT');
    assert.equal(`${finding.severity} ${finding.path}`, 'warning dataPlane.kernel');
    assert.deepEqual(brief(raw), ['warning LB_NO_EFFECT dataPlane.kernel']);
    assert.equal(configurationOf(raw).kernel, undefined);
    assert.equal(configurationOf(raw).tableSize, 65_537);
  });

  it('parseConfiguration() refuses capture beside the kernel data plane', () => {
    const raw = kernelExample('nat', {}, planeWith({ capture: { block: '10.0.0.0/8' } }));
    assert.deepEqual(told(raw), ['error LB_CONFLICT dataPlane.capture']);
  });

  it('parseConfiguration() wants an interface for floating-l2 alone', () => {
    const finding = only(kernelExample('floating-l2', { interface: undefined }), 'LB_MISSING_KEY');
    assert.equal(finding.path, 'dataPlane.kernel.interface');
    for (const mode of MODES) assert.deepEqual(told(kernelExample(mode, { interface: 'eth0' })), []);
  });

  it('parseConfiguration() tells how answers come back with nat', () => {
    const route = only(kernelExample('nat'), 'LB_KERNEL_RETURN');
    assert.equal(`${route.severity} ${route.path}`, 'note dataPlane.kind');
    assert.match(`${route.message} ${route.expected} ${route.reason}`, /route .*gateway.*masquerade.*doctor/);
    const written = only(kernelExample('nat', { returnPath: 'route' }), 'LB_KERNEL_RETURN');
    assert.equal(written.path, 'dataPlane.kernel.returnPath');
    const hidden = only(kernelExample('nat', { returnPath: 'masquerade' }), 'LB_KERNEL_MASQUERADE');
    assert.equal(`${hidden.severity} ${hidden.path}`, 'note dataPlane.kernel.returnPath');
    assert.match(`${hidden.message} ${hidden.reason}`, /instead of the client's.*64,000 flows/);
    assert.deepEqual(withCode(kernelExample('nat', { returnPath: 'masquerade' }), 'LB_KERNEL_RETURN'), []);
    for (const mode of MODES.slice(1)) {
      assert.deepEqual(withCode(kernelExample(mode), 'LB_KERNEL_RETURN'), []);
      assert.deepEqual(told(kernelExample(mode, { returnPath: 'masquerade' })), [
        'error LB_KERNEL_MODE dataPlane.kernel.returnPath',
      ]);
    }
  });

  it('parseConfiguration() refuses nat without flow state', () => {
    const at = ['error LB_KERNEL_MODE dataPlane.kernel.flowState'];
    assert.deepEqual(told(kernelExample('nat', { flowState: 'stateless' })), at);
    assert.deepEqual(told(kernelExample('floating-l2', { flowState: 'stateless' })), []);
    assert.deepEqual(told(kernelExample('floating-routed', { flowState: 'stateless' })), []);
  });

  it('parseConfiguration() wants two spokes of each family in use', () => {
    const path = 'error LB_KERNEL_SPOKES dataPlane.kernel.spokes';
    const v6 = frontendWith({ address: '::' });
    const members6 = poolWith({ backends: [{ address: 'fd00::1' }, { address: 'fd00::2' }] });
    const six = (raw: Example) => {
      v6(raw);
      members6(raw);
    };
    const cases: readonly (readonly [Record<string, unknown>, (raw: Example) => void, readonly string[]])[] =
      [
        [{ flowState: 'stateless' }, () => undefined, [path]],
        [{ flowState: 'stateless', spokes: ['10.1.0.0/16'] }, () => undefined, [path]],
        [{ spokes: ['10.1.0.0/16'] }, () => undefined, [path]],
        [{ spokes: [] }, () => undefined, []],
        [{ spokes: ['10.1.0.0/16', 'fd01::/16'] }, () => undefined, [path]],
        [{ spokes: ['10.1.0.0/16', '10.2.0.0/16'] }, () => undefined, []],
        [{ spokes: ['10.1.0.0/16', '10.2.0.0/16'] }, six, [path]],
        [{ spokes: ['fd01::/16', 'fd02::/16'] }, six, []],
      ];
    for (const [kernel, change, found] of cases) {
      assert.deepEqual(told(kernelExample('next-hop', kernel, change)), found, JSON.stringify(kernel));
    }
    const pinned = only(kernelExample('next-hop', { spokes: ['10.1.0.0/16'] }), 'LB_KERNEL_SPOKES');
    assert.match(pinned.expected ?? '', /or no spokes at all$/);
    const stateless = only(kernelExample('next-hop', { flowState: 'stateless' }), 'LB_KERNEL_SPOKES');
    assert.doesNotMatch(stateless.expected ?? '', /no spokes/);
    assert.match(pinned.reason ?? '', /only what goes from one to another/);
    assert.match(stateless.reason ?? '', /^Without flow state/);
  });

  it('parseConfiguration() wants spokes apart from each other', () => {
    for (const inner of ['10.1.2.0/24', '10.1.0.0/16', '10.0.0.0/8']) {
      const raw = kernelExample('next-hop', { spokes: ['10.1.0.0/16', '192.168.0.0/16', inner] });
      const finding = only(raw, 'LB_KERNEL_SPOKES');
      assert.equal(finding.path, 'dataPlane.kernel.spokes[2]');
      assert.equal(finding.found, `"${inner}"`);
    }
    assert.deepEqual(told(kernelExample('next-hop', { spokes: ['10.1.0.0/17', '10.1.128.0/17'] })), []);
  });

  it('parseConfiguration() notes spokes that no mode but next-hop has', () => {
    const raw = kernelExample('nat', { spokes: ['10.1.0.0/16', '10.1.0.0/24'] });
    assert.deepEqual(told(raw), ['note LB_KERNEL_NO_EFFECT dataPlane.kernel.spokes']);
  });

  it('parseConfiguration() refuses a frontend of this machine that is to be routed on', () => {
    const own = { ownAddresses: [ipAddress('10.0.0.1')] };
    const at = ['error LB_KERNEL_ADDRESS frontends[0].address'];
    assert.deepEqual(withCode(kernelExample('floating-routed'), 'LB_KERNEL_ADDRESS', own), at);
    assert.deepEqual(withCode(kernelExample('floating-l2'), 'LB_KERNEL_ADDRESS', own), []);
    assert.deepEqual(withCode(kernelExample('nat'), 'LB_KERNEL_ADDRESS', own), []);
  });

  it('parseConfiguration() leaves out own ports only where packets could reach them', () => {
    const metrics = (listen: string) => topWith({ metrics: { listen } });
    const cases: readonly (readonly [Mode, string, string])[] = [
      ['nat', '0.0.0.0:8005', '8000-8004,8006-8099'],
      ['nat', '10.0.0.1:8005', '8000-8004,8006-8099'],
      ['nat', '10.0.0.2:8005', '8000-8099'],
      ['floating-l2', '0.0.0.0:8005', '8000-8099'],
      ['floating-routed', '0.0.0.0:8005', '8000-8099'],
      ['floating-routed', '10.0.0.1:8005', '8000-8004,8006-8099'],
      ['next-hop', '0.0.0.0:8005', '8000-8099'],
      ['next-hop', '127.0.0.1:8005', '8000-8099'],
    ];
    for (const [mode, listen, ports] of cases) {
      const raw = kernelExample(mode, {}, metrics(listen));
      assert.deepEqual(told(raw), [], `${mode} ${listen}`);
      assert.equal(portsOf(raw), ports, `${mode} ${listen}`);
    }
  });

  it('parseConfiguration() knows loops by the address of the backend itself', () => {
    const loop = ['error LB_LOOP backendPools[0].backends[0].address'];
    const twoFrontends = (raw: Example) => {
      raw.frontends.push({ name: 'other', address: '10.0.1.1' });
      raw.rules.push({ ...raw.rules[0], name: 'second', frontend: 'other' });
    };
    for (const mode of ['nat', 'floating-l2', 'floating-routed'] as const) {
      const found = withCode(kernelExample(mode, {}, twoFrontends), 'LB_LOOP');
      assert.ok(found.length > 0 && found.every((line) => line === loop[0]), mode);
    }
    const own = { ownAddresses: [ipAddress('10.0.1.1')] };
    assert.ok(withCode(kernelExample('next-hop'), 'LB_LOOP', own).includes(loop[0] ?? ''));
    assert.deepEqual(withCode(kernelExample('next-hop'), 'LB_LOOP'), []);
  });

  it('parseConfiguration() asks for no source addresses where nothing is bound', () => {
    const all = ruleWith({ listenPorts: '1-65535' });
    for (const mode of MODES) {
      assert.deepEqual(withCode(kernelExample(mode, {}, all), 'LB_SOURCE_NEEDED'), []);
    }
    const from = topWith({
      probes: [{ name: 'alive', protocol: 'http', port: 9000, sourceAddress: '10.0.0.1' }],
    });
    const source = (mode: Mode) =>
      withCode(
        kernelExample(mode, {}, (raw) => {
          all(raw);
          from(raw);
        }),
        'LB_SOURCE_PORTS',
      );
    assert.deepEqual(source('nat'), []);
    assert.deepEqual(source('floating-l2'), ['error LB_SOURCE_PORTS probes[0].sourceAddress']);
  });

  it('parseConfiguration() resolves floating IP to the frontend itself', () => {
    const raw = kernelExample('floating-routed', {}, oneBackend({ floatingAddresses: { hub: '127.0.0.9' } }));
    const at = 'note LB_KERNEL_NO_EFFECT backendPools[0].backends[0].floatingAddresses';
    assert.deepEqual(told(raw), [at]);
    const [pool] = configurationOf(raw).backendPools;
    assert.deepEqual(
      pool?.backends.map(({ floatingAddresses }) => floatingAddresses['hub']?.text),
      ['10.0.0.1', '10.0.0.1'],
    );
    const nat = configurationOf(
      kernelExample('nat', {}, oneBackend({ floatingAddresses: { hub: '127.0.0.9' } })),
    );
    assert.deepEqual(nat.backendPools[0]?.backends[0]?.floatingAddresses, {});
  });
});
