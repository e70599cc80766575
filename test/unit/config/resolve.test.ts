import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { ipAddress, parseCidr } from '../../../src/model/address.js';
import { FLOW_POLICY_PRESETS, linkRules, type AnswersFrom } from '../../../src/model/configuration.js';
import { parsePortSet } from '../../../src/model/ports.js';
import { parseConfiguration } from '../../../src/config/load.js';
import { example, haExample, parse } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

/** printf '{"backendPools":[],"frontends":[],"rules":[]}' | sha256sum */
const SHA256_OF_EMPTY = '3b7781b5db8d211ed526dc96c96cd707e7a740b79300661cc10755b92261e06e';

describe('resolve', () => {
  it('fills in every default', () => {
    const { digest, ...rest } = configurationOf(example());
    const [frontend] = rest.frontends;
    const [probe] = rest.probes;
    const [pool] = rest.backendPools;
    assert.match(digest, /^[0-9a-f]{64}$/);
    const backend = (text: string) => ({
      id: `nvas/${text}`,
      name: text,
      address: ipAddress(text),
      weight: 1,
      priority: 0,
      adminState: 'none',
      floatingAddresses: {},
    });
    assert.deepEqual(rest, {
      compat: 'none',
      seed: 0,
      tableSize: 65537,
      workers: 1,
      instance: 'haports',
      frontends: [{ name: 'hub', address: ipAddress('10.0.0.1'), allow: [], deny: [] }],
      probes: [
        {
          name: 'alive',
          protocol: 'http',
          port: 9000,
          path: '/',
          expectStatus: [{ first: 200, last: 200 }],
          skipVerify: false,
          explicitAnswerFlips: true,
          intervalMs: 5000,
          timeoutMs: 5000,
          upThreshold: 2,
          downThreshold: 2,
          sendProxy: 'none',
        },
      ],
      backendPools: [
        {
          name: 'nvas',
          backends: [backend('10.0.1.1'), backend('10.0.1.2')],
          minimumHealthy: 1,
          sourceAddresses: [],
          sourcePorts: [{ first: 32768, last: 60999 }],
          proxyProtocol: 'none',
          connectTimeoutMs: 5000,
          connectAttempts: 3,
        },
      ],
      rules: [
        {
          name: 'web',
          ...{ frontend, pool, probe },
          protocols: ['tcp'],
          haPorts: false,
          ports: [{ first: 443, last: 443 }],
          portOffset: 6000,
          floatingIp: false,
          distribution: 'five-tuple',
          symmetric: false,
          idleTimeoutMs: {
            tcp: { value: 240_000, origin: 'default' },
            udp: { value: 30_000, origin: 'default' },
          },
          tcpReset: true,
          flowPolicy: FLOW_POLICY_PRESETS.azure,
          allDown: 'reset',
          tcp: { noDelay: true },
          udp: { perPacket: false },
        },
      ],
      limits: { tcpFlows: 65536, udpFlows: 65536, embryonicFlows: 16384, embryonicTimeoutMs: 30_000 },
      logging: { level: 'info', format: 'auto' },
      shutdownDeadlineMs: 30_000,
    });
  });

  it('links each rule to the frontend, pool and probe of the configuration itself', () => {
    const { frontends, backendPools, probes, rules } = configurationOf(example());
    assert.equal(rules[0]?.frontend, frontends[0]);
    assert.equal(rules[0]?.pool, backendPools[0]);
    assert.equal(rules[0]?.probe, probes[0]);
    const named = { ...rules[0]!, frontend: 'hub', backendPool: 'gone', name: 'lost' };
    assert.throws(() => linkRules([{ ...named, probe: 'alive' }], { frontends, backendPools, probes }), {
      name: 'TypeError',
      message: 'Rule "lost" names "gone", which does not exist',
    });
  });

  it('takes over everything that is given', () => {
    const ruleKeys = { symmetric: true, distribution: 'source-ip', tcpReset: false, allDown: 'fail-open' };
    const limits = {
      tcpFlows: 1,
      udpFlows: 2,
      embryonicFlows: 3,
      tcpFlowsPerSource: 5,
      udpFlowsPerSource: 6,
    };
    const probe = {
      ...{ protocol: 'https', path: '/a?b', host: 'a.example', serverName: 'b.example', expectBody: 'OK' },
      ...{ skipVerify: true, sendProxy: 'v2', weightFromProbeHeader: 'X-Weight', explicitAnswerFlips: false },
    };
    const poolKeys = { minimumHealthy: 2, proxyProtocol: 'v2', connectAttempts: 1 };
    const result = configurationOf(
      example({
        seed: 7,
        dataPlane: { workers: 0 },
        limits: { ...limits, embryonicTimeout: '4s' },
        logging: { level: 'debug', format: 'json' },
        flowLog: { file: 'flows.ndjson', sample: 0.5 },
        metrics: { listen: '[::1]:9902' },
        shutdown: { deadline: '0s' },
        frontend: {
          proxyProtocol: { accept: 'any', trustedSources: ['10.0.0.0/8'], headerTimeout: '1s' },
          allow: ['::ffff:10.0.0.0/104'],
          deny: ['10.1.0.0/16'],
        },
        probe: {
          ...probe,
          expectStatus: '200-299, 401',
          interval: '2s',
          timeout: '1s',
          threshold: { up: 3 },
          sourceAddress: '10.0.0.50',
          flapDamping: {},
        },
        pool: {
          ...poolKeys,
          sourceAddresses: ['10.0.0.50'],
          sourcePorts: '1024-2047',
          connectTimeout: '1s',
          maxConnections: 10,
          backends: [
            { name: 'one', address: '10.0.1.1', weight: 0, priority: 0, adminState: 'up', maxConnections: 5 },
            { address: '10.0.1.2', floatingAddresses: { hub: '10.7.0.2' } },
          ],
        },
        rule: {
          ...ruleKeys,
          idleTimeout: { tcp: '5m' },
          tcp: { noDelay: false, keepAlive: '1m' },
          protocol: 'all',
          udp: { expectedResponses: 1 },
        },
      }),
    );
    const { seed, workers, logging, flowLog, metrics, shutdownDeadlineMs } = result;
    assert.deepEqual([seed, workers, shutdownDeadlineMs], [7, 0, 0]);
    assert.deepEqual(result.limits, { ...limits, embryonicTimeoutMs: 4000 });
    assert.deepEqual(logging, { level: 'debug', format: 'json' });
    assert.deepEqual(flowLog, { file: 'flows.ndjson', sample: 0.5 });
    assert.deepEqual(metrics, { address: ipAddress('::1'), port: 9902 });
    const ten = parseCidr('10.0.0.0/8');
    assert.deepEqual(result.frontends[0], {
      name: 'hub',
      address: ipAddress('10.0.0.1'),
      proxyProtocol: { accept: 'any', trustedSources: [ten], headerTimeoutMs: 1000 },
      allow: [ten],
      deny: [parseCidr('10.1.0.0/16')],
    });
    assert.deepEqual(result.probes[0], {
      name: 'alive',
      port: 9000,
      ...probe,
      expectStatus: [
        { first: 200, last: 299 },
        { first: 401, last: 401 },
      ],
      intervalMs: 2000,
      timeoutMs: 1000,
      upThreshold: 3,
      downThreshold: 2,
      sourceAddress: ipAddress('10.0.0.50'),
      flapDamping: { transitions: 6, windowMs: 60_000, holdMs: 30_000 },
    });
    const { backends, ...pool } = result.backendPools[0]!;
    assert.deepEqual(
      backends.map((each) => [each.name, each.maxConnections, each.weight, each.adminState]),
      [
        ['one', 5, 0, 'up'],
        ['10.0.1.2', 10, 1, 'none'],
      ],
    );
    assert.deepEqual(backends[1]?.floatingAddresses, { hub: ipAddress('10.7.0.2') });
    assert.deepEqual(pool, {
      name: 'nvas',
      ...poolKeys,
      sourceAddresses: [ipAddress('10.0.0.50')],
      sourcePorts: [{ first: 1024, last: 2047 }],
      connectTimeoutMs: 1000,
    });
    const { protocols, tcp, udp, distribution, symmetric, tcpReset, allDown } = result.rules[0]!;
    assert.deepEqual(protocols, ['tcp', 'udp']);
    assert.deepEqual(tcp, { noDelay: false, keepAliveMs: 60_000 });
    assert.deepEqual(udp, { perPacket: false, expectedResponses: 1 });
    assert.deepEqual({ distribution, symmetric, tcpReset, allDown }, ruleKeys);
  });

  it('lets the idle timeout of a frontend beat that of a rule, and says whose it is', () => {
    const raw = example({
      frontend: { idleTimeout: { tcp: '10m' } },
      rule: { protocol: 'all', idleTimeout: { tcp: '5m', udp: '7s' } },
    });
    assert.deepEqual(configurationOf(raw).rules[0]?.idleTimeoutMs, {
      tcp: { value: 600_000, origin: 'frontend' },
      udp: { value: 7000, origin: 'rule' },
    });
  });

  const timeouts: readonly (readonly [Record<string, unknown>, number])[] = [
    [{ protocol: 'tcp', interval: '10m' }, 600_000],
    [{ protocol: 'http', interval: '10m' }, 30_000],
    [{ protocol: 'https', interval: '31s' }, 30_000],
    [{ protocol: 'http', interval: '29s' }, 29_000],
    [{ protocol: 'http', interval: '10m', timeout: '40s' }, 40_000],
  ];
  for (const [change, timeoutMs] of timeouts) {
    it(`gives probe ${JSON.stringify(change)} a timeout of ${timeoutMs} ms`, () => {
      assert.equal(configurationOf(example({ probe: change })).probes[0]?.timeoutMs, timeoutMs);
    });
  }

  const every = { listenPorts: undefined };
  const named = (protocol: string, frontendPort: string, more = {}) => {
    return { haPorts: false, protocol, frontendPort, ...every, ...more };
  };
  const ports: readonly (readonly [string, Record<string, unknown>, string, string, number])[] = [
    ['every port less the metrics', every, '127.0.0.1:9902', '1-65535', 0],
    ['every port less metrics on the same address', every, '10.0.0.1:9902', '1-9901,9903-65535', 0],
    ['every port less metrics on a wildcard', every, '0.0.0.0:1', '2-65535', 0],
    ['every port less metrics on the other wildcard', every, '[::]:65535', '1-65534', 0],
    ['a set', { listenPorts: '22, 8000-8001' }, '10.0.0.1:22', '8000-8001', 0],
    ['a range', named('tcp', '5000-5100', { backendPort: 6000 }), '[::1]:1', '5000-5100', 1000],
    ['a range downwards', named('udp', '5000-5100', { backendPort: 1 }), '[::1]:1', '5000-5100', -4999],
    [
      'a range in a set',
      named('tcp', '5000-5100', { listenPorts: '1-5000,5100-9999' }),
      ...(['[::1]:1', '5000,5100', 0] as const),
    ],
  ];
  for (const [what, change, listen, expected, offset] of ports) {
    it(`works out ${what}`, () => {
      const rule = configurationOf(haExample({ metrics: { listen }, rule: change })).rules[0]!;
      assert.deepEqual(rule.ports, parsePortSet(expected));
      assert.equal(rule.portOffset, offset);
      assert.equal(rule.haPorts, change['haPorts'] !== false);
    });
  }

  const bySource = (udp?: object) => ({ haPorts: true, distribution: 'source-ip', udp });
  const tftp = { protocol: 'udp', frontendPort: 69, backendPort: 0 };
  const answers: readonly (readonly [string, Record<string, unknown>, AnswersFrom | undefined])[] = [
    ['HA ports by source', bySource(), 'address'],
    ['HA ports by five-tuple', { haPorts: true }, undefined],
    ['HA ports by source and protocol', { haPorts: true, distribution: 'source-ip-protocol' }, undefined],
    ['one port by source', { ...tftp, distribution: 'source-ip' }, undefined],
    ['one port that says so', { ...tftp, udp: { answersFrom: 'address' } }, 'address'],
    ['HA ports by source that do not want it', bySource({ answersFrom: 'endpoint' }), undefined],
    ['HA ports by source with counted responses', bySource({ expectedResponses: 1 }), undefined],
    ['HA ports by source, one way', bySource({ perPacket: true }), undefined],
  ];
  for (const [what, { haPorts, ...change }, expected] of answers) {
    it(`takes answers from the ${expected ?? 'endpoint'} for ${what}`, () => {
      const written = haPorts === true ? haExample({ rule: change }) : example({ rule: change });
      assert.equal(configurationOf(written).rules[0]?.udp.answersFrom, expected);
    });
  }

  it('ends TCP of a pool of one when it is down, as Azure does, unless the rule says otherwise', () => {
    const probeDown = (backends: number, flowPolicy: unknown, allDown = 'reset') => {
      const pool = { backends: ['10.0.1.1', '10.0.1.2'].slice(0, backends) };
      return configurationOf(example({ pool, rule: { flowPolicy, allDown } })).rules[0]!.flowPolicy[
        'probe-down'
      ];
    };
    assert.deepEqual(probeDown(2, 'azure'), { tcp: 'persist', udp: 'rebalance' });
    assert.deepEqual(probeDown(1, 'azure'), { tcp: 'reset', udp: 'rebalance' });
    assert.deepEqual(probeDown(1, { preset: 'azure', probeDown: { tcp: 'persist' } }).tcp, 'persist');
    assert.deepEqual(probeDown(1, 'azure', 'fail-open').tcp, 'persist');
    assert.deepEqual(probeDown(1, 'gcp').tcp, 'persist');
    assert.deepEqual(probeDown(1, 'aws-gwlb').tcp, 'persist');
  });

  it('freezes all the way down and survives structured clone', () => {
    const configuration = configurationOf(haExample());
    const loose: string[] = [];
    const visit = (value: unknown, path: string): void => {
      if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
      if (!Object.isFrozen(value)) loose.push(path);
      for (const [key, member] of Object.entries(value)) visit(member, `${path}.${key}`);
    };
    visit(configuration, '');
    assert.deepEqual(loose, []);
    assert.deepEqual(structuredClone(configuration), configuration);
  });

  it('gives one digest for one meaning, whatever the order of keys and the schema', () => {
    const raw = example();
    const digest = configurationOf(raw).digest;
    const reversed = Object.fromEntries(Object.entries({ $schema: 'x', ...raw }).reverse());
    assert.equal(configurationOf(reversed).digest, digest);
    assert.notEqual(configurationOf(example({ seed: 1 })).digest, digest);
    const swapped = example({ pool: { backends: ['10.0.1.2', '10.0.1.1'] } });
    assert.notEqual(configurationOf(swapped).digest, digest);
  });

  it('digests as printf | sha256sum does', () => {
    const result = parseConfiguration('{"rules": [], "frontends": [], "backendPools": [], "$schema": "s"}');
    assert.ok(result.ok);
    assert.equal(result.configuration.digest, SHA256_OF_EMPTY);
  });

  it('resolves the embedded default without errors or warnings', () => {
    const result = parseConfiguration(readFileSync('config.json', 'utf8'));
    assert.ok(result.ok);
    assert.deepEqual(
      result.findings.filter(({ severity }) => severity !== 'note'),
      [],
    );
    const { rules, frontends, metrics } = result.configuration;
    assert.deepEqual(
      frontends.map(({ address }) => address.text),
      ['127.0.0.1', '::1'],
    );
    assert.ok(rules.every((rule) => rule.haPorts && rule.symmetric && rule.protocols.length === 2));
    assert.deepEqual(metrics, { address: ipAddress('127.0.0.1'), port: 9902 });
  });

  it('leaves the input alone', () => {
    const raw = haExample();
    const before = structuredClone(raw);
    parse(raw);
    assert.deepEqual(raw, before);
  });
});

it('parseConfiguration() takes what is written in the flow policy over the preset', () => {
  const flowPolicy = { preset: 'firewall', probeDown: { tcp: 'persist' }, removed: 'drop', idle: 'drop' };
  assert.deepEqual(configurationOf(example({ rule: { flowPolicy } })).rules[0]?.flowPolicy, {
    'probe-down': { tcp: 'persist', udp: 'rebalance' },
    'admin-down': { tcp: 'reset', udp: 'rebalance' },
    removed: { tcp: 'drop', udp: 'drop' },
    'drain-deadline': { tcp: 'reset', udp: 'rebalance' },
    idle: { tcp: 'drop', udp: 'drop' },
  });
});
