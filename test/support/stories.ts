import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

/** A story of a text file: steps, and what comes of each, one a line. */
export interface Story {
  /** The heading that it stands under. */
  readonly situation: string;
  /** The JSON that the heading ends with. @default {} */
  readonly setting: unknown;
  readonly lines: readonly string[];
}

/** Makes a test of each story (`## title`) under a situation (`# a situation {...}`). `path`: from the root of the repository. */
export function testStories(
  subject: string,
  path: string,
  tell: (story: Story, t: TestContext) => Promise<void>,
): void {
  const text = readFileSync(join(process.cwd(), path), 'utf8');
  for (const part of text.split('\n# ').slice(1)) {
    const [heading = '', ...stories] = part.split('\n## ');
    const [, situation = '', json = '{}'] = /^(.*?)(?: (\{.*\}))?$/.exec(heading.trim()) ?? [];
    describe(`${subject}: ${situation}`, () => {
      for (const story of stories) {
        const [title = '', ...lines] = story.split('\n').filter((line) => line.trim() !== '');
        const setting: unknown = JSON.parse(json);
        test(title, (t) => tell({ situation, setting, lines }, t));
      }
    });
  }
}
