import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A folder of `name.json` and `name.<extension>`: what goes in, and the text that comes out of it. */
export class GoldenFolder {
  readonly #folder: string;
  readonly #extension: string;

  /** `folder`: from the root of the repository. */
  constructor(folder: string, extension: string) {
    this.#folder = join(process.cwd(), folder);
    this.#extension = extension;
  }

  get names(): readonly string[] {
    const files = readdirSync(this.#folder).filter((file) => file.endsWith('.json'));
    return files.map((file) => basename(file, '.json')).sort();
  }

  input(name: string): unknown {
    return JSON.parse(readFileSync(join(this.#folder, `${name}.json`), 'utf8'));
  }

  /** Set UPDATE_GOLDEN=1 to write what comes out, and read the difference. */
  compare(name: string, text: string): void {
    const path = join(this.#folder, `${name}.${this.#extension}`);
    if (process.env['UPDATE_GOLDEN'] !== undefined) writeFileSync(path, text);
    assert.ok(existsSync(path), `${path} is missing: run with UPDATE_GOLDEN=1`);
    assert.equal(text, readFileSync(path, 'utf8'));
  }
}
