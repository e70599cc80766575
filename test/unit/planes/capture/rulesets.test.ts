import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { captureInputs } from '../../../../src/planes/capture/ports-in-use.js';
import { captureSetup } from '../../../../src/planes/capture/table.js';
import { setupText } from '../../../../src/planes/netfilter/setup.js';
import { GoldenFolder } from '../../../support/golden.js';
import { configurationOf } from '../../../support/state-factory.js';

const golden = new GoldenFolder('test/unit/planes/capture/rulesets', 'nft');

describe('the ruleset of capture', () => {
  for (const name of golden.names) {
    const { title, configuration: raw } = golden.input(name) as { title: string; configuration: object };
    test(`${name}: ${title}`, () => {
      const configuration = configurationOf(raw);
      const { input } = captureInputs(configuration, configuration.capture ?? assert.fail(), []);
      const setup = captureSetup(input);
      const stale = (setup.staleFlows ?? []).map((filter) => `# conntrack -D ${filter.join(' ')}\n`);
      assert.doesNotMatch(setupText(setup, { full: true }), /more of these/);
      golden.compare(name, `# ${title}\n\n${setupText(setup, { full: false })}\n${stale.join('')}`);
    });
  }
});
