import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setupText } from '../../../../src/planes/netfilter/setup.js';
import { captureInputs } from '../../../../src/planes/capture/ports-in-use.js';
import { captureSetup } from '../../../../src/planes/capture/table.js';
import { captured } from '../capture/capture-fixtures.js';

const { configuration, plan } = captured();
const setup = captureSetup(captureInputs(configuration, plan, []).input);

describe('setupText()', () => {
  test('shows the first elements of each set, and how many more there are', () => {
    const lines = setupText(setup, { full: false }).split('\n');
    const added = lines.findIndex((line) => line.includes('tcp4-four { 8000 : '));
    assert.match(lines[added] ?? '', /\{ 8000 : \S+, 8001 : \S+, 8002 : \S+, 8003 : \S+ \}$/);
    assert.equal(lines[added + 1], '# ... and 97 more of these');
  });

  test('shows everything if told so, with routes and addresses as comments', () => {
    const text = setupText(setup, { full: true });
    assert.match(text, / 8099 : /);
    assert.match(text, / 9000 : /);
    assert.doesNotMatch(text, /more of these/);
    assert.match(text, /^# ip -4 route add local /m);
    assert.match(text, /^# ip -6 addr add /m);
    // All else is for nft.
    assert.doesNotMatch(text, /^ip /m);
  });
});
