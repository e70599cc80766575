import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { configurationFromJson, configurationToJson } from '../../../src/api/configuration-json.js';
import type { KernelMode } from '../../../src/model/configuration.js';
import { formatPortSet } from '../../../src/model/ports.js';
import { example, kernelExample, parse, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

const SPOKES = ['10.1.0.0/16', '10.2.0.0/16'];
const nat = (change: Change, kernel = {}) => kernelExample('nat', kernel, change);
const withRule = (rule: object): Change => ({ rule: { ...rule } });
const MAPPED = withRule({
  haPorts: false,
  protocol: 'tcp',
  frontendPort: 443,
  backendPort: 6443,
  listenPorts: undefined,
});

describe('kernel data plane', () => {
  it('fills in what the options leave open', () => {
    const { kernel, tableSize, workers, capture } = configurationOf(
      nat({ dataPlane: { kernel: undefined } }),
    );
    assert.deepEqual(
      { ...kernel },
      {
        ...{ mode: 'nat', returnPath: 'route', flowState: 'pinned', spokes: [] },
        ...{ manageSysctls: false, onStop: 'keep' },
      },
    );
    assert.deepEqual([tableSize, workers, capture], [4093, 0, undefined]);
    assert.equal(configurationOf(example()).kernel, undefined);
    const userspace = configurationOf(example({ dataPlane: { kernel: { mode: 'floating-l2' } } }));
    assert.deepEqual([userspace.kernel, userspace.tableSize], [undefined, 65_537]);
  });

  it('takes every option over', () => {
    const given = { interface: 'eth0.7', flowState: 'stateless', manageSysctls: true, onStop: 'remove' };
    const configuration = configurationOf(
      kernelExample('next-hop', { ...given, spokes: SPOKES, tableSize: 65_521 }),
    );
    const { kernel, tableSize } = configuration;
    assert.deepEqual(
      { ...kernel, spokes: kernel?.spokes.map(({ text }) => text) },
      { mode: 'next-hop', returnPath: 'route', ...given, spokes: SPOKES },
    );
    assert.equal(tableSize, 65_521);
    assert.deepEqual(configurationFromJson(configurationToJson(configuration)), configuration);
  });

  it('works out floatingIp, ports and answers as the mode has them', () => {
    const rule = (mode: KernelMode, change: object) =>
      configurationOf(kernelExample(mode, {}, withRule(change))).rules[0];
    assert.equal(rule('next-hop', { floatingIp: true })?.floatingIp, false);
    assert.equal(rule('floating-l2', {})?.floatingIp, true);
    assert.equal(configurationOf(nat(MAPPED)).rules[0]?.portOffset, 6000);
    assert.deepEqual(rule('nat', { distribution: 'source-ip' })?.udp, { perPacket: false });
  });

  const listens: readonly (readonly [KernelMode, string, boolean])[] = [
    ['nat', '0.0.0.0:8005', true],
    ['nat', '10.0.0.1:8005', true],
    ['nat', '10.0.0.2:8005', false],
    ['floating-l2', '0.0.0.0:8005', false],
    ['floating-routed', '0.0.0.0:8005', false],
    ['floating-routed', '10.0.0.1:8005', true],
    ['next-hop', '0.0.0.0:8005', false],
    ['next-hop', '127.0.0.1:8005', false],
  ];
  for (const [mode, listen, isLeftOut] of listens) {
    it(`${isLeftOut ? 'leaves out' : 'keeps'} the port of metrics on ${listen} with mode ${mode}`, () => {
      const { rules } = configurationOf(kernelExample(mode, {}, { metrics: { listen } }));
      const ports = isLeftOut ? '8000-8004,8006-8099' : '8000-8099';
      assert.equal(formatPortSet(rules[0]?.ports ?? []), ports);
    });
  }

  it('resolves floating IP to the frontend itself', () => {
    const alias = {
      pool: { backends: [{ address: '10.0.1.1', floatingAddresses: { hub: '127.0.0.9' } }, '10.0.1.2'] },
    };
    const written = kernelExample('floating-routed', {}, alias);
    const paths = parse(written)
      .findings.filter(({ code }) => code === 'LB_KERNEL_NO_EFFECT')
      .map(({ path }) => path);
    assert.deepEqual(paths, ['backendPools[0].backends[0].floatingAddresses']);
    assert.deepEqual(
      configurationOf(written).backendPools[0]?.backends.map((one) => one.floatingAddresses['hub']?.text),
      ['10.0.0.1', '10.0.0.1'],
    );
    assert.deepEqual(configurationOf(nat(alias)).backendPools[0]?.backends[0]?.floatingAddresses, {});
  });

  it('has as many backends as marks', () => {
    const block = (net: number, count: number) =>
      Array.from({ length: count }, (_, n) => `10.${net}.${n >> 8}.${n & 255}`);
    const errors = (count: number) =>
      parse(
        nat(
          {
            pool: { backends: block(200, 32_768) },
            more: { pools: [{ name: 'others', backends: block(201, count) }] },
          },
          { tableSize: 65_521 },
        ),
      ).findings.filter(({ code }) => code === 'LB_VALUE');
    assert.deepEqual(errors(32_767), []);
    assert.deepEqual(
      errors(32_768).map(({ severity, path }) => `${severity} ${path}`),
      ['error backendPools'],
    );
  });
});
