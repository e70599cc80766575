import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { runCli } from '../../../src/cli/program.js';
import { FakeDeps } from '../../unit/cli/fake-deps.js';

const FOLDER = 'docs/commands';

async function help(...command: readonly string[]): Promise<string> {
  const deps = new FakeDeps();
  assert.equal(await runCli(deps, [...command, '--help'], 'config.json'), 0);
  return deps.stdout;
}

/** Words at the beginning of the lines under "Commands:". */
function commandsIn(text: string): readonly string[] {
  const [, list = ''] = /\nCommands:\n((?: {2}.*\n)+)/.exec(text) ?? [];
  return [...list.matchAll(/^ {2}([a-z][a-z-]*)/gm)].map(([, name = '']) => name);
}

/** Flags with the names of their values, as `-c, --config <file>`. */
function optionsIn(text: string): readonly string[] {
  return [...text.matchAll(/^ {2}(-\S.*?)(?: {2,}.*)?$/gm)].map(([, flags = '']) => flags).sort();
}

function documentedOptions(page: string): readonly string[] {
  return [...page.matchAll(/^\| `(-[^`]+)` +\|/gm)].map(([, flags = '']) => flags).sort();
}

const commands = commandsIn(await help()).filter((name) => name !== 'help');
const pages = (await readdir(FOLDER)).filter((file) => file !== 'README.md').sort();

describe(FOLDER, () => {
  test('has a page for every command, and for nothing else', () => {
    assert.ok(commands.length >= 10);
    assert.deepEqual(pages, commands.map((name) => `${name}.md`).sort());
  });

  for (const name of commands) {
    test(`${name}.md has the usage and every option of the command`, async () => {
      const page = await readFile(join(FOLDER, `${name}.md`), 'utf8');
      const text = await help(name);
      const usage = /^Usage: (.*)$/m.exec(text)?.[1] ?? '';
      assert.ok(page.startsWith(`# haports ${name}\n`));
      assert.ok(page.includes(`\n\`\`\`text\n${usage}\n\`\`\`\n`), usage);
      assert.ok(optionsIn(text).length > 0);
      assert.deepEqual(documentedOptions(page), optionsIn(text));
    });

    test(`${name}.md says what it does, shows it, and has its exit codes`, async () => {
      const page = await readFile(join(FOLDER, `${name}.md`), 'utf8');
      assert.match(page, /^# .*\n\n[A-Z].{40,}/);
      assert.match(page, /\n## Examples\n\n(?:.*\n)*?```(?:console|sh|text)\n/);
      assert.match(page, /\n## Exit codes\n\n0 /);
    });

    test(`README.md leads to ${name}.md`, async () => {
      assert.ok((await readFile(join(FOLDER, 'README.md'), 'utf8')).includes(`[${name}](${name}.md)`));
    });
  }
});

describe('links', () => {
  const sources = ['docs/operations.md', ...['README.md', ...pages].map((file) => join(FOLDER, file))];
  for (const source of sources) {
    test(`${source} leads to files and headings that exist`, async () => {
      const text = await readFile(source, 'utf8');
      for (const [, path = '', heading] of text.matchAll(/\]\(([^)#:\s]+)(?:#([^)]+))?\)/g)) {
        const target = join(dirname(source), path);
        assert.ok(existsSync(target), `${path} in ${source}`);
        if (heading === undefined) continue;
        const anchors = [...(await readFile(target, 'utf8')).matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
          title
            .toLowerCase()
            .replaceAll(/[^a-z0-9 -]/g, '')
            .replaceAll(' ', '-'),
        );
        assert.ok(anchors.includes(heading), `${path}#${heading} in ${source}`);
      }
    });
  }
});
