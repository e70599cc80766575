import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

const css = readFileSync('src/admin/page/style.css', 'utf8');

/** The `--name: light-dark(#rrggbb, #rrggbb)` of the page. */
function colours(scheme: 'light' | 'dark'): ReadonlyMap<string, string> {
  const found = css.matchAll(/--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);/g);
  return new Map(
    [...found].map(([, name = '', light = '', dark = '']) => [name, scheme === 'light' ? light : dark]),
  );
}

/** Relative luminance (WCAG 2.2). */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

describe('page/style.css', () => {
  for (const scheme of ['light', 'dark'] as const) {
    test(`has text that can be read, ${scheme} (WCAG 2.2, 1.4.3 and 1.4.11)`, () => {
      const palette = colours(scheme);
      const of = (name: string) => palette.get(name) ?? assert.fail(`no --${name}`);
      for (const ground of ['ground', 'surface', 'raised']) {
        for (const text of ['text', 'muted', 'good', 'warn', 'bad', 'route', 'accent']) {
          const found = contrast(of(text), of(ground));
          assert.ok(found >= 4.5, `${text} on ${ground}: ${found.toFixed(2)}`);
        }
        for (const line of ['edge', 'accent', 'second', 'good']) {
          const found = contrast(of(line), of(ground));
          assert.ok(found >= 3, `${line} on ${ground}: ${found.toFixed(2)}`);
        }
      }
      assert.ok(contrast(of('on-accent'), of('accent')) >= 4.5);
    });
  }

  test('asks nobody else for anything', () => {
    assert.doesNotMatch(css, /@import|url\(|https?:/);
  });
});
