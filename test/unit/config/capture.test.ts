import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatPortSet } from '../../../src/model/ports.js';
import { example, haExample, type Change } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

/** All ports of 10.0.0.1, captured. */
function captured(capture: object = {}, { rule, dataPlane, ...change }: Change = {}) {
  return haExample({
    dataPlane: { ...dataPlane, capture: { ...capture } },
    rule: { listenPorts: '1-65535', ...rule },
    ...change,
  });
}
/** A rule that names ports of its own beside the HA-ports rule. */
const naming = (frontendPort: number | string, capture?: object) =>
  captured(capture, {
    more: { rules: [{ haPorts: false, listenPorts: undefined, protocol: 'tcp', frontendPort }] },
  });
const portsOf = (written: object, rule = 0) =>
  formatPortSet(configurationOf(written).rules[rule]?.ports ?? []);

describe('capture', () => {
  it('fills in what capture leaves open', () => {
    const { excludedPorts, block, ...rest } = configurationOf(captured()).capture!;
    assert.deepEqual(rest, { udp: 'redirect', fallback: 'none', port: 61_000 });
    assert.deepEqual([formatPortSet(excludedPorts), block.text], ['22', '240.0.0.0/4']);
    assert.equal(configurationOf(example()).capture, undefined);
  });

  for (const [written, ports] of [
    [captured(), '1-21,23-65535'],
    [captured({ excludedPorts: '22, 179, 60000-65535' }), '1-21,23-178,180-59999'],
    [captured({}, { metrics: { listen: '0.0.0.0:9902' } }), '1-21,23-9901,9903-65535'],
    [haExample({ rule: { listenPorts: '20-25' } }), '20-25'],
    [naming(22), '1-21,23-65535'],
  ] as const) {
    it(`leaves ${ports} to an HA-ports rule, less excluded and own ports`, () =>
      assert.equal(portsOf(written), ports));
  }

  it('gives a rule that names ssh its port', () => assert.equal(portsOf(naming(22), 1), '22'));
});
