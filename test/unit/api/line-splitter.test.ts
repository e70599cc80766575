import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { splitLines, type NumberedLine } from '../../../src/api/flow-log.js';
import { inPieces } from '../whatif/recorded-flows.js';

async function split(text: string, size: number, mostLength?: number): Promise<NumberedLine[]> {
  const lines: NumberedLine[] = [];
  for await (const some of splitLines(inPieces(text, size), mostLength)) lines.push(...some);
  return lines;
}

describe('splitLines()', () => {
  test('gives the lines of a text wherever it is cut, characters of several bytes included', async () => {
    const text = 'first\n\nthird: Zürich, 東京, 🙂\n   \r\nfifth\nlast without end';
    const expected = [
      { number: 1, text: 'first' },
      { number: 3, text: 'third: Zürich, 東京, 🙂' },
      { number: 5, text: 'fifth' },
      { number: 6, text: 'last without end' },
    ];
    for (const size of [1, 2, 3, 7, 1000]) assert.deepEqual(await split(text, size), expected);
    assert.deepEqual((await split(`${text}\n`, 5)).length, 4);
    assert.deepEqual(await split('', 5), []);
  });

  test('gives a line that is too long by its number alone, and goes on with the next', async () => {
    const text = `short\n${'x'.repeat(50)}\nagain\n${'y'.repeat(30)}`;
    for (const size of [1, 8, 1000]) {
      assert.deepEqual(await split(text, size, 20), [
        { number: 1, text: 'short' },
        { number: 2, text: undefined },
        { number: 3, text: 'again' },
        { number: 4, text: undefined },
      ]);
    }
  });
});
