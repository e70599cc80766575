import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Finding } from '../../../src/config/findings.js';
import type { Surroundings } from '../../../src/config/load.js';
import { parse } from '../../support/example.js';

/** A configuration, and what is found in it: `error rules[0].probe` each, and patterns for the sentences. */
export type Row = readonly [what: string, written: object, ...found: readonly (string | RegExp)[]];

interface Scope {
  /** Only findings with this code count. Without it all but those that `ignored` names do, and rows say the code too. */
  readonly code?: string;
  readonly ignored?: RegExp;
  readonly surroundings?: Surroundings;
}

/** One test for each row: exactly the findings that it lists are found, in whatever order. */
export function finds(
  title: string,
  rows: readonly Row[],
  { code, ignored, surroundings }: Scope = {},
): void {
  describe(title, () => {
    for (const [what, written, ...found] of rows) {
      const expected = found.filter((one) => typeof one === 'string');
      const patterns = found.filter((one) => one instanceof RegExp);
      it(`${expected.length === 0 ? 'is silent on' : 'tells'} ${what}`, () => {
        const { ok, findings } = parse(written, surroundings);
        assert.equal(ok, !findings.some(({ severity }) => severity === 'error'));
        const counted = findings.filter((one) =>
          code === undefined ? ignored?.test(one.code) !== true : one.code === code,
        );
        const brief = counted.map((one) =>
          code === undefined ? briefly(one) : `${one.severity} ${one.path}`,
        );
        assert.deepEqual(brief.toSorted(), expected.toSorted());
        for (const pattern of patterns) assert.match(counted.map(sentences).join('\n'), pattern);
      });
    }
  });
}

/** As finds, for findings with one code. */
export function findsOnly(code: string, rows: readonly Row[], surroundings: Surroundings = {}): void {
  finds(code, rows, { code, surroundings });
}

/** `error LB_LOOP rules[0].backendPort` */
export function briefly({ severity, code, path }: Finding): string {
  return `${severity} ${code} ${path}`;
}

/** `message | found | expected | reason` */
export function sentences({ message, found = '', expected = '', reason = '' }: Finding): string {
  return [message, found, expected, reason].join(' | ');
}
