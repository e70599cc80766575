import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allPortsConfig } from '../../../../bench/e2e/peers/haports-all-ports.js';
import { kernelConfig } from '../../../../bench/e2e/peers/haports-kernel.js';
import { haportsConfig } from '../../../../bench/e2e/peers/haports.js';
import { haproxyConfig } from '../../../../bench/e2e/peers/haproxy.js';
import { nginxConfig } from '../../../../bench/e2e/peers/nginx.js';
import { labelOf, portsOf, type ServeSpec } from '../../../../bench/e2e/peers/peer.js';
import { readShape } from '../../../../src/config/read.js';

const SPEC: ServeSpec = {
  frontend: '127.9.0.1',
  tcpPorts: [
    [5201, 5201],
    [8080, 8081],
  ],
  udpPorts: [[5201, 5201]],
  backends: ['127.9.2.1', '127.9.2.2'],
  distribution: 'source-ip',
};

test('haportsConfig() fits the schema', () => {
  const config = haportsConfig({ ...SPEC, otherRules: 3 }, 2);
  assert.deepEqual(readShape(config).issues, []);
  const { rules } = config as { readonly rules: readonly { readonly listenPorts?: string }[] };
  assert.deepEqual(
    rules.map(({ listenPorts }) => listenPorts),
    [undefined, undefined, undefined, '5201-5201,8080-8081', '5201-5201'],
  );
});

test('haproxyConfig() binds every range and keeps the port', () => {
  const lines = haproxyConfig(SPEC, 2)
    .split('\n')
    .map((line) => line.trim());
  assert.ok(lines.includes('nbthread 2'));
  assert.ok(lines.includes('bind 127.9.0.1:8080-8081'));
  assert.ok(lines.includes('balance source'));
  assert.ok(lines.includes('server b2 127.9.2.2'));
});

test('nginxConfig() has a server for each port and protocol', () => {
  const text = nginxConfig(SPEC, 1, '/tmp/x', 'load_module /m.so;');
  assert.ok(text.startsWith('load_module /m.so;'));
  assert.equal([...text.matchAll(/ server \{ listen /g)].length, 4);
  assert.match(text, /listen 127\.9\.0\.1:5201 udp; proxy_pass p5201;/);
  assert.match(text, /upstream p8081 \{ hash \$remote_addr consistent; server 127\.9\.2\.1:8081;/);
});

test('portsOf() lists every port of the ranges, labelOf() tells two workers', () => {
  assert.deepEqual(portsOf(SPEC.tcpPorts), [5201, 8080, 8081]);
  assert.deepEqual([labelOf('nginx', 1), labelOf('nginx', 2)], ['nginx', 'nginx x2']);
});

test('allPortsConfig() fits the schema, with and without capture', () => {
  const serve = { frontend: '10.77.0.1', backends: ['10.77.2.1'], adminSocket: '/tmp/x/admin.sock' };
  for (const capture of [undefined, true] as const) {
    const way = { name: 'x', workers: 1, ...(capture && { capture }) };
    const config = allPortsConfig(way, { ...serve, listenPorts: '7500-8499' });
    assert.deepEqual(readShape(config).issues, []);
    assert.equal(JSON.stringify(config).includes('"capture"'), capture !== undefined);
  }
  assert.ok(!JSON.stringify(allPortsConfig({ name: 'x', workers: 8 }, serve)).includes('listenPorts'));
});

test('kernelConfig() fits the schema in both modes, and leaves nothing in the kernel', () => {
  for (const mode of ['nat', 'floating-l2'] as const) {
    const config = kernelConfig(mode, { backends: ['10.77.2.11'], adminSocket: '/tmp/x/admin.sock' });
    assert.deepEqual(readShape(config).issues, []);
    assert.match(JSON.stringify(config), /"onStop":"remove"/);
  }
});
