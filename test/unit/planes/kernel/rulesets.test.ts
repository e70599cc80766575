import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseCidr } from '../../../../src/model/address.js';
import { setupOf } from '../../../../src/planes/kernel/plane.js';
import { compileProgram } from '../../../../src/planes/kernel/program.js';
import {
  abbreviated,
  deltaText,
  setupText,
  tableName,
  type KernelSetup,
} from '../../../../src/planes/netfilter/setup.js';
import { GoldenFolder } from '../../../support/golden.js';
import { StateFactory, type Conditions } from '../../../support/state-factory.js';

interface Case {
  readonly title: string;
  readonly configuration: object;
  /** Of the machine's own links. */
  readonly networks?: readonly string[];
  /** Each from all backends up. */
  readonly changes?: readonly (Conditions & { readonly title: string })[];
}

const factory = await StateFactory.create();
const golden = new GoldenFolder('test/unit/planes/kernel/rulesets', 'nft');

describe('the ruleset of a configuration', () => {
  for (const name of golden.names) {
    const { title, configuration, networks = [], changes = [] } = golden.input(name) as Case;
    test(`${name}: ${title}`, () => {
      const setup = (conditions?: Conditions): KernelSetup =>
        setupOf(
          compileProgram(factory.state(configuration, conditions)),
          networks.map((text) => parseCidr(text) ?? assert.fail(text)),
        );
      const up = setup();
      // nft takes two chains of one name for one.
      const chains = Array.from(up.structure.matchAll(/^ {2}chain (\S+) /gm), ([, chain]) => chain);
      assert.equal(new Set(chains).size, chains.length);
      const parts = [`# ${title}\n\n${setupText(up, { full: false })}`];
      for (const { title: change, ...conditions } of changes) {
        // Whatever becomes of backends, elements differ, and the structure stays.
        const delta = deltaText(up, setup(conditions)) ?? assert.fail(`${tableName(up)}: ${change}`);
        parts.push(`\n# When ${change}:\n${abbreviated(delta)}`);
      }
      golden.compare(name, parts.join(''));
    });
  }
});
