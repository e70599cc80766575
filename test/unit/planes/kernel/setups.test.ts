import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseCidr } from '../../../../src/model/address.js';
import type { KernelOptions } from '../../../../src/model/configuration.js';
import { natSetup } from '../../../../src/planes/kernel/nat/rules.js';
import { setupOf } from '../../../../src/planes/kernel/plane.js';
import { compileProgram, type KernelProgram } from '../../../../src/planes/kernel/program.js';
import { deltaText } from '../../../../src/planes/netfilter/setup.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';
import type { Conditions } from '../../../support/state-factory.js';

/* What rulesets/*.nft do not show at a glance. */

const states = await KernelStates.create();
const SPOKES = ['10.10.0.0/16', '10.20.0.0/16', 'fd10::/64', '10.30.0.0/16', 'fd20::/64'].flatMap(
  (text) => parseCidr(text) ?? [],
);

function program(options: Partial<KernelOptions> = {}, conditions: Conditions = {}): KernelProgram {
  const address = options.mode === 'next-hop' ? '0.0.0.0' : '10.9.0.10';
  const raw = oneRule({ frontends: [{ name: 'hub', address }], rule: { probe: 'alive' } });
  return compileProgram(states.state(raw, { tableSize: 251, ...options }, conditions));
}

describe('natSetup()', () => {
  test('has the table by slot, as nft lists it', () => {
    const from = program();
    const { sets } = natSetup(from);
    const slots = sets.get('to-nvas.alive');
    assert.deepEqual(
      [...(slots?.keys() ?? [])],
      Array.from({ length: 251 }, (_, slot) => String(slot)),
    );
    const marks = from.tables[0]?.marks ?? [];
    assert.equal(new Set(marks).size, 3);
    for (const [slot, mark] of marks.entries()) assert.equal(Number(slots?.get(String(slot))), mark);
    for (const { mark, address } of from.backends) {
      assert.equal(sets.get('addr4')?.get(`0x${mark.toString(16).padStart(8, '0')}`), address.text);
    }
  });

  test('changes a third of the slots and a few more when a backend of three goes down', () => {
    const delta = deltaText(natSetup(program()), natSetup(program({}, { health: { b12: 'down' } }))) ?? '';
    assert.equal(delta.trim().split('\n').length, 3, delta);
    const changed = delta.split(':').length - 1;
    assert.ok(changed > 251 / 4 && changed < 251 / 2, delta);
  });

  test('is the same for the same program, whatever the order of backends', () => {
    const from = program();
    const backwards = { ...from, backends: [...from.backends].reverse() };
    assert.equal(deltaText(natSetup(from), natSetup(backwards)), '');
  });
});

describe('floatingSetup()', () => {
  test('says that floating-l2 needs an interface', () => {
    assert.throws(() => setupOf(program({ mode: 'floating-l2' }), []), TypeError);
  });
});

describe('nextHopSetup()', () => {
  const setup = (options: Partial<KernelOptions> = {}) =>
    setupOf(program({ mode: 'next-hop', spokes: SPOKES, ...options }), []);

  test('balances nothing of a family that has fewer than two spokes', () => {
    assert.match(setup({ spokes: SPOKES.slice(0, 1) }).structure, /^ {2}chain new4 \{\n {2}\}/m);
  });

  test('asks conntrack nothing where packets are balanced without flow state', () => {
    const { structure } = setup({ flowState: 'stateless' });
    const words = structure.split('\n').filter((line) => /\bct\b/.test(line));
    // Neighbours are learned from connections of this machine itself.
    assert.ok(
      words.every((line) => line.includes('update @near')),
      words.join('\n'),
    );
    assert.equal(words.length, 2);
  });
});
