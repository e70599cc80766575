import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elementsDifference, listedElements, tableBlock } from '../../../../src/planes/netfilter/nft.js';

const RULESET = `table inet filter {
	chain input {
		comment "table inet haports {"
	}
}
table inet haports-b {
	map m {
		type inet_service : ipv4_addr
	}
}
table inet haports { # handle 4
	set s {
		type inet_service
	}

	chain c {
	}
}
`;

describe('tableBlock()', () => {
  test('gives what an instance has of either family', () => {
    const netdev = 'table netdev haports {\n\tchain in {\n\t}\n}';
    assert.equal(tableBlock(`table ip other {\n}\n${netdev}\n`, 'haports'), netdev);
    assert.match(
      tableBlock(`${RULESET}\n${netdev}\n`, 'haports') ?? '',
      /^table inet haports[^]*table netdev haports/,
    );
  });

  test('is the part of that table alone', () => {
    const block = tableBlock(RULESET, 'haports') ?? '';
    assert.match(block, /^table inet haports \{ # handle 4\n/);
    assert.match(block, /chain c \{\n\t\}\n\}$/);
    assert.equal(tableBlock(RULESET, 'filter')?.endsWith('\t}\n}'), true);
  });

  test('is undefined where there is no such table', () => {
    assert.equal(tableBlock(RULESET, 'haport'), undefined);
    assert.equal(tableBlock('', 'haports'), undefined);
  });
});

describe('listedElements()', () => {
  test('reads maps of any length, IPv6 values and intervals', () => {
    const listing = `table inet t {
	map m {
		type inet_service : ipv6_addr
		elements = { 1 : fd68:6170:6f72:7473:5::1, 2 : fd68::2,
			     65535 : :: }
	}
}`;
    assert.deepEqual(
      [...listedElements(listing)],
      [
        ['1', 'fd68:6170:6f72:7473:5::1'],
        ['2', 'fd68::2'],
        ['65535', '::'],
      ],
    );
    assert.deepEqual(
      [...listedElements('elements = { 1-21, 23 }')],
      [
        ['1-21', ''],
        ['23', ''],
      ],
    );
    assert.equal(listedElements('map m {\n type inet_service : mark\n}').size, 0);
  });
});

describe('elementsDifference()', () => {
  const expected = new Map([
    ['1', 'a'],
    ['2', 'b'],
    ['3', 'c'],
  ]);

  test('is undefined when they are the same, in any order', () => {
    assert.equal(elementsDifference('m', new Map([...expected].reverse()), expected), undefined);
  });

  test('tells what is missing, another or too much', () => {
    assert.match(
      elementsDifference(
        'm',
        new Map([
          ['1', 'a'],
          ['2', 'x'],
        ]),
        expected,
      ) ?? '',
      /m must have 2 and 1 more/,
    );
    assert.match(
      elementsDifference('m', new Map([...expected, ['9', 'z']]), expected) ?? '',
      /m has 9, which must not/,
    );
  });
});
