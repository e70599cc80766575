import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { linkNetworks } from '../../../../src/dataplane/kernel/link-networks.js';

describe('linkNetworks()', () => {
  test('linkNetworks() has the networks of links, as ip lists them', () => {
    // iproute2 6.1: `ip -4 route show proto kernel scope link`, `ip -6 route show proto kernel`.
    const listing = [
      '10.2.0.0/24 dev router scope link src 10.2.0.1 ',
      '10.9.0.1 dev wg0 scope link src 10.9.0.2 ',
      'fd02::/64 dev router metric 256 pref medium',
      'fd09::10 dev lo metric 256 pref medium',
      'fe80::/64 dev router metric 256 pref medium',
      'default dev ppp0 scope link',
      '',
    ].join('\n');
    assert.deepEqual(
      linkNetworks(listing).map(({ text }) => text),
      ['10.2.0.0/24', 'fd02::/64'],
    );
  });
});
