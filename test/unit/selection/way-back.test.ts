import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ipAddress, parseCidr, type FiveTuple } from '../../../src/model/address.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import type { KernelOptions } from '../../../src/model/configuration.js';
import { formatExplanation } from '../../../src/cli/explain.js';
import { explain } from '../../../src/selection/explain.js';
import { NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { KernelStates } from '../../support/kernel-states.js';
import { aTuple, reversed } from './fixtures.js';

const states = await KernelStates.create();
const SPOKES = ['10.10.0.0/16', '10.20.0.0/16', '10.30.0.0/16'].flatMap((text) => parseCidr(text) ?? []);

function state(options: Partial<KernelOptions>, rule: object = { haPorts: true }): ForwardingState {
  const address = options.mode === 'next-hop' ? '0.0.0.0' : '10.20.0.4';
  const backends = ['10.0.0.11', '10.0.0.12', '10.0.0.13'].map((text) => ({ address: text }));
  return states.state(
    {
      frontends: [{ name: 'beyond', address }],
      backendPools: [{ name: 'nvas', backends }],
      rules: [{ name: 'all', frontend: 'beyond', backendPool: 'nvas', ...rule }],
    },
    options,
  );
}

function pick(of: ForwardingState, tuple: FiveTuple): string {
  const result = states.picker.pick(of, tuple, NONE_EXCLUDED);
  return result.kind === 'picked' ? result.backendId : result.kind;
}

const TUPLE = aTuple('10.10.0.4:40000', '10.20.0.4:443');

describe('explain() of the way back, next-hop', () => {
  for (const flowState of ['pinned', 'stateless'] as const) {
    test(`between spokes both directions have the same hash, ${flowState}`, () => {
      const with3 = state({ mode: 'next-hop', spokes: SPOKES, flowState });
      const { wayBack, result } = explain(states.picker, with3, TUPLE);
      assert.equal(wayBack?.sameBy, 'hash');
      assert.equal(wayBack.tuple, 'tcp 10.20.0.4:443 -> 10.10.0.4:40000');
      assert.equal(wayBack.hashedTo, result.kind === 'picked' ? result.backendId : '');
    });
  }

  test('between any two spokes any flow meets the same backend in both directions', () => {
    const with3 = state({ mode: 'next-hop', spokes: SPOKES, flowState: 'stateless' });
    const end = fc.tuple(
      fc.constantFrom(10, 20, 30),
      fc.nat(255),
      fc.nat(255),
      fc.integer({ min: 1, max: 65_535 }),
    );
    fc.assert(
      fc.property(end, end, ([a, b, c, port], [d, e, f, other]) => {
        const tuple: FiveTuple = {
          protocol: 'udp',
          source: ipAddress(`10.${a}.${b}.${c}`),
          sourcePort: port,
          destination: ipAddress(`10.${d}.${e}.${f}`),
          destinationPort: other,
        };
        assert.equal(pick(with3, tuple), pick(with3, reversed(tuple)));
        // What stays in its spoke is not balanced.
        assert.equal(pick(with3, tuple) === 'no-rule', a === d);
      }),
    );
  });

  test("traffic that is not between spokes is no rule's", () => {
    const with3 = state({ mode: 'next-hop', spokes: SPOKES });
    assert.equal(
      explain(states.picker, with3, aTuple('10.10.0.4:40000', '192.0.2.1:443')).result.kind,
      'no-rule',
    );
    assert.equal(
      explain(states.picker, with3, aTuple('192.0.2.1:40000', '10.10.0.4:443')).result.kind,
      'no-rule',
    );
  });

  test('without spokes the kernel remembers the flow', () => {
    const { wayBack } = explain(states.picker, state({ mode: 'next-hop' }), TUPLE);
    assert.equal(wayBack?.sameBy, 'flow');
    assert.equal(wayBack.hashedTo, pick(state({ mode: 'next-hop' }), reversed(TUPLE)));
    const port = state({ mode: 'next-hop' }, { protocol: 'tcp', frontendPort: 443, backendPort: 443 });
    const { wayBack: ofPort } = explain(states.picker, port, TUPLE);
    assert.deepEqual([ofPort?.sameBy, ofPort?.hashedTo], ['flow', undefined]);
  });

  test('without spokes and without flow state nothing sees to it', () => {
    const neither = state({ mode: 'next-hop', flowState: 'stateless' });
    assert.equal(explain(states.picker, neither, TUPLE).wayBack?.sameBy, 'nothing');
  });

  test('other modes have no way back of that kind', () => {
    assert.equal(explain(states.picker, state({ mode: 'nat' }), TUPLE).wayBack, undefined);
  });
});

test('formatExplanation() says how the way back meets the same backend', () => {
  const text = (options: Partial<KernelOptions>): string =>
    formatExplanation(explain(states.picker, state({ mode: 'next-hop', ...options }), TUPLE))
      .join(' ')
      .replaceAll(/\s+/g, ' ');
  assert.match(
    text({ spokes: SPOKES }),
    /Return path tcp 10\.20\.0\.4:443 -> 10\.10\.0\.4:40000 the same hash/,
  );
  assert.match(
    text({}),
    /the same backend while the kernel knows the flow; after that its own hash leads to nvas\/10/,
  );
  assert.match(
    text({ flowState: 'stateless' }),
    /SYMMETRY IS NOT GUARANTEED: its own hash leads to nvas\/10/,
  );
});
