import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { fromBytes, type FiveTuple } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { Distribution } from '../../src/model/configuration.js';
import { explain } from '../../src/selection/explain.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { aRule, aState, reversed } from '../unit/selection/fixtures.js';

const picker = new Picker(await createHasher());
const port = fc.integer({ min: 1, max: 65535 });
const distribution = fc.constantFrom<Distribution>('five-tuple', 'source-ip-protocol', 'source-ip');

// Few distinct bytes, so that equal addresses and ties turn up.
const octet = fc.constantFrom(0, 1, 127, 128, 255);
const tuples: fc.Arbitrary<FiveTuple> = fc.constantFrom(4, 16).chain((length) => {
  // A leading 0x20 keeps IPv6 out of the IPv4-mapped block.
  const address = fc
    .array(octet, { minLength: length - 1, maxLength: length - 1 })
    .map((rest) => fromBytes([0x20, ...rest]));
  return fc.record({
    protocol: fc.constantFrom('tcp', 'udp'),
    source: address,
    sourcePort: port,
    destination: address,
    destinationPort: port,
  });
});

const tables = fc.array(fc.nat(2), { minLength: 7, maxLength: 7 }).map((owners) => Uint16Array.from(owners));
const exclusions = fc
  .subarray(['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'])
  .map((ids) => new Set(ids));

function stateWith(
  layout: { distribution: Distribution; symmetric: boolean },
  table: Uint16Array,
): ForwardingState {
  return aState({ configuration: { rules: [aRule(layout)] }, view: { table } });
}

test('pickForRule() gives both directions of a flow the same backend when symmetric', () => {
  fc.assert(
    fc.property(tuples, distribution, tables, exclusions, (tuple, fields, table, excluded) => {
      const state = stateWith({ distribution: fields, symmetric: true }, table);
      assert.deepEqual(
        picker.pickForRule(state, 0, tuple, excluded),
        picker.pickForRule(state, 0, reversed(tuple), excluded),
      );
    }),
  );
});

test('pickForRule() never gives an excluded backend, and finds one whenever the table has another', () => {
  fc.assert(
    fc.property(tuples, tables, exclusions, fc.nat(1_000_000), (tuple, table, excluded, sequence) => {
      const state = stateWith({ distribution: 'five-tuple', symmetric: false }, table);
      const free = [...table].some((owner) => !excluded.has(`nvas/10.0.0.${owner + 1}`));
      const result = picker.pickForRule(state, 0, tuple, excluded, sequence);
      assert.equal(result.kind, free ? 'picked' : 'none');
      if (result.kind !== 'picked') return;
      assert.ok(!excluded.has(result.backendId));
      assert.equal(table[result.slot], result.backendIndex);
      assert.equal((result.hash + sequence + result.skipped) % table.length, result.slot);
      assert.equal(result.reason, result.skipped > 0 ? 'retry' : 'hash');
    }),
  );
});

test('pickForRule() gives the same answer to the same question, whatever was asked in between', () => {
  fc.assert(
    fc.property(tuples, tuples, distribution, tables, exclusions, (tuple, other, fields, table, excluded) => {
      const state = stateWith({ distribution: fields, symmetric: false }, table);
      const first = picker.pickForRule(state, 0, tuple, excluded);
      picker.pickForRule(aState(), 0, other, new Set());
      assert.deepEqual(picker.pickForRule(structuredClone(state), 0, tuple, excluded), first);
    }),
  );
});

test('pickForRule() ignores the fields that the distribution leaves out', () => {
  fc.assert(
    fc.property(tuples, port, port, fc.boolean(), (tuple, sourcePort, destinationPort, symmetric) => {
      const hashOf = (fields: Distribution, asked: FiveTuple): number =>
        picker.hashOf(stateWith({ distribution: fields, symmetric }, new Uint16Array(7)), 0, asked).hash;
      const moved = { ...tuple, sourcePort, destinationPort };
      const otherProtocol = { ...moved, protocol: tuple.protocol === 'tcp' ? 'udp' : 'tcp' } as const;
      assert.equal(hashOf('source-ip-protocol', tuple), hashOf('source-ip-protocol', moved));
      assert.equal(hashOf('source-ip', tuple), hashOf('source-ip', otherProtocol));
      assert.notEqual(hashOf('source-ip-protocol', tuple), hashOf('source-ip-protocol', otherProtocol));
    }),
  );
});

test('explain() decides as the picker does, and its fields make up the hash input', () => {
  fc.assert(
    fc.property(
      tuples,
      distribution,
      fc.boolean(),
      tables,
      exclusions,
      (tuple, fields, symmetric, table, out) => {
        const state = stateWith({ distribution: fields, symmetric }, table);
        const here = { ...tuple, destination: state.configuration.frontends[0]!.address };
        const asked = tuple.source.family === 4 ? here : tuple;
        const explanation = explain(picker, state, asked, out);
        assert.deepEqual(explanation.result, picker.pick(state, asked, out));
        if (explanation.key === undefined) return;
        assert.equal(explanation.key.fields.map(({ hex }) => hex).join(''), explanation.key.hex);
        const shares = explanation.candidates.reduce((sum, { share }) => sum + share, 0);
        assert.ok(Math.abs(shares - 1) < 1e-9);
      },
    ),
  );
});
