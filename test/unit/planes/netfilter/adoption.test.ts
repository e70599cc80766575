import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { withoutSeal } from '../../../../src/planes/netfilter/nft.js';

const TABLE = `table inet haports { # handle 3
\tset s { # handle 1
\t\ttype mark
\t}

\tchain a { # handle 2
\t\taccept # handle 5
\t}
}`;

const SEALED = TABLE.replace(
  /\n\}$/,
  '\n\n\tchain as-0123456789abcdef0123-fedcba98765432100123 { # handle 9\n\t}\n}',
);

describe('withoutSeal()', () => {
  test('is the table as it was before it was sealed', () => {
    assert.equal(withoutSeal(SEALED), TABLE);
  });

  test('leaves a table without a seal alone, and any other change to be seen', () => {
    assert.equal(withoutSeal(TABLE), TABLE);
    assert.notEqual(withoutSeal(SEALED.replace('accept', 'drop')), TABLE);
  });
});
