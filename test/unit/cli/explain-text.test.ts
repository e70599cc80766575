import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, parseCidr } from '../../../src/model/address.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { formatExplanation } from '../../../src/cli/explain.js';
import { explain } from '../../../src/selection/explain.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { GoldenFolder } from '../../support/golden.js';
import {
  aBackend,
  aBackendState,
  aConfiguration,
  aFrontend,
  aRule,
  aState,
  aTuple,
} from '../selection/fixtures.js';

const golden = new GoldenFolder('test/unit/cli/transcripts', 'txt');
const picker = new Picker(await createHasher());
const tuple = aTuple('203.0.113.9:40000', '198.51.100.1:443');

function text(state: ForwardingState, asked = tuple, ...excluded: string[]): string {
  return formatExplanation(explain(picker, state, asked, new Set(excluded))).join('\n');
}

/** The text with line breaks and indents folded, for looking for sentences. */
function folded(state: ForwardingState, asked = tuple, ...excluded: string[]): string {
  return text(state, asked, ...excluded).replaceAll(/\s+/g, ' ');
}

test('formatExplanation() lays out a decision', () => {
  const backends = [
    aBackendState(aBackend('nva-1', '10.0.0.1')),
    aBackendState(aBackend('nva-2', '10.0.0.2'), { effectiveWeight: 4 }),
    aBackendState(aBackend('nva-3', '10.0.0.3'), {
      health: 'down',
      valid: false,
      serving: false,
      exclusion: 'probe-down',
    }),
  ];
  const configuration = aConfiguration({
    rules: [
      aRule({
        name: 'web',
        haPorts: false,
        ports: [{ first: 443, last: 443 }],
        portOffset: 6000,
        probe: 'alive',
      }),
      aRule(),
    ],
  });
  const state = aState({ configuration, view: { backends, table: Uint16Array.of(0, 1, 1, 0, 1, 1, 1) } });
  golden.compare('explanation', `${text(state, tuple, 'nvas/10.0.0.1')}\n`);
});

test('formatExplanation() stays within 80 columns with the longest addresses', () => {
  const address = ipAddress('2001:db8:1234:5678:9abc:def0:1234:5678');
  const state = aState({
    configuration: { frontends: [aFrontend({ address })], rules: [aRule({ symmetric: true })] },
    view: {
      backends: [1, 2, 3].map((n) =>
        aBackendState(aBackend(`firewall-appliance-${n}`, `2001:db8:ffff:eeee:dddd:cccc:bbbb:aaa${n}`)),
      ),
    },
  });
  const asked = aTuple('[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535', `[${address.text}]:65535`);
  const ids = state.views[0]?.backends.map(({ backend }) => backend.id) ?? [];
  for (const excluded of [[], ids.slice(0, 2), ids]) {
    for (const line of text(state, asked, ...excluded).split('\n')) {
      assert.ok(line.length <= 80, `${line.length}: ${line}`);
      assert.equal(line, line.trimEnd());
    }
  }
});

test('formatExplanation() says in one sentence why a flow goes nowhere', () => {
  const block = parseCidr('203.0.113.0/24');
  assert.ok(block);
  const none = { table: new Uint16Array(0) };
  const all = ['nvas/10.0.0.1', 'nvas/10.0.0.2', 'nvas/10.0.0.3'];
  assert.match(folded(aState({ configuration: { rules: [] } })), /no rule covers it.*none configured/);
  const denied = folded(aState({ configuration: { frontends: [aFrontend({ deny: [block] })] } }));
  assert.match(denied, /does not admit this source.*denied by deny 203\.0\.113\.0\/24/);
  assert.match(folded(aState({ view: none })), /no backend is eligible; the flow is reset/);
  const drop = aState({ configuration: { rules: [aRule({ allDown: 'drop' })] }, view: none });
  assert.match(folded(drop), /no backend is eligible; the flow is dropped/);
  assert.match(folded(aState(), tuple, ...all), /every serving backend is among the 3 excluded/);
});

test('formatExplanation() counts the rules that do not fit beyond the first twenty', () => {
  const rules = Array.from({ length: 25 }, (_, index) =>
    aRule({ name: `rule-${index}`, protocols: ['udp'] }),
  );
  const printed = text(aState({ configuration: { rules } }));
  assert.match(printed, /"rule-19": other protocol\n/);
  assert.doesNotMatch(printed, /"rule-20"/);
  assert.match(printed, /and 5 more/);
});

test('formatExplanation() says what is special: fail-open, floating IP, datagrams one by one, no reset', () => {
  const failOpen = aState({
    configuration: { rules: [aRule({ allDown: 'fail-open' })] },
    view: { table: new Uint16Array(0), failOpenTable: Uint16Array.of(0, 1, 2) },
  });
  assert.match(folded(failOpen), /failing open: no backend is eligible/);
  const floatingAddresses = { hub: ipAddress('127.1.0.1') };
  const floating = aState({
    configuration: { rules: [aRule({ floatingIp: true, tcpReset: false })] },
    view: {
      backends: [1, 2, 3].map((n) =>
        aBackendState(aBackend(`nva-${n}`, `10.0.0.${n}`, { floatingAddresses })),
      ),
    },
  });
  assert.match(folded(floating), /goes to nva-1 at 127\.1\.0\.1:443.*floating IP: dialled at.*no RST/);
  const perPacket = aState({ configuration: { rules: [aRule({ udp: { perPacket: true } })] } });
  assert.match(folded(perPacket, { ...tuple, protocol: 'udp' }), /each datagram by itself/);
});
