import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { runCommand } from '../../support/commands.js';

const DOCKERFILE = 'deploy/container/Dockerfile';

/** Instructions without comments, continued lines joined. */
function readDockerfile(text: string) {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, name = '', rest = ''] = /^([A-Z]+) (.+)$/.exec(line) ?? [];
      assert.notEqual(name, '', `an instruction: ${line}`);
      return { name, rest };
    });
}

const instructions = readDockerfile(await readFile(DOCKERFILE, 'utf8'));
const of = (name: string): readonly string[] =>
  instructions.filter((instruction) => instruction.name === name).map(({ rest }) => rest);
const lastStage = instructions.slice(instructions.findLastIndex(({ name }) => name === 'FROM'));
const inLastStage = (name: string): string | undefined =>
  lastStage.findLast((instruction) => instruction.name === name)?.rest;

/** Whether .dockerignore lets a file of the repository into the build; patterns are plain names, `*` and `!name`. */
async function isSent(path: string): Promise<boolean> {
  const patterns = (await readFile('.dockerignore', 'utf8'))
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  assert.equal(patterns[0], '*');
  assert.deepEqual(
    patterns.slice(1).filter((pattern) => !/^![\w.-]+$/.test(pattern)),
    [],
  );
  return patterns.includes(`!${path}`);
}

describe(DOCKERFILE, () => {
  test('is built from one image, pinned to a version', () => {
    const [base = '', ...others] = of('ARG');
    assert.deepEqual(others, []);
    assert.match(base, /^BASE=node:20\.\d+\.\d+-bookworm-slim$/);
    assert.deepEqual(of('FROM'), ['${BASE} AS build', '${BASE}']);
  });

  test('copies only what is there, and what .dockerignore lets through', async () => {
    const sources = of('COPY')
      .filter((rest) => !rest.startsWith('--from='))
      .flatMap((rest) => rest.split(' ').slice(0, -1));
    assert.ok(sources.includes('package-lock.json') && sources.includes('src'));
    for (const source of sources) {
      assert.ok(existsSync(source), `${source} exists`);
      assert.ok(await isSent(source), `${source} is let through by .dockerignore`);
    }
  });

  test('sends neither tests nor what was built or installed outside', async () => {
    for (const path of ['test', 'bench', 'node_modules', 'dist', 'build', '.git']) {
      assert.equal(await isSent(path), false, path);
    }
  });

  test('installs what the lock file says, and keeps only what runs', () => {
    const runs = of('RUN').join(' && ');
    assert.match(runs, /npm ci .*npm run build .*npm ci --omit=dev/);
    const kept = lastStage.filter(({ name }) => name === 'COPY').map(({ rest }) => rest);
    for (const what of ['package.json', 'node_modules', 'dist']) {
      assert.ok(
        kept.some((rest) => rest.startsWith(`--from=build /opt/haports/${what} `)),
        what,
      );
    }
    // Nothing in the last stage is run as root, or could be.
    assert.deepEqual(
      lastStage.filter(({ name }) => name === 'RUN' || name === 'ADD'),
      [],
    );
  });

  test('runs as an ordinary user, by number', () => {
    assert.match(inLastStage('USER') ?? '', /^[1-9]\d*:[1-9]\d*$/);
    assert.equal(inLastStage('STOPSIGNAL'), 'SIGTERM');
    assert.equal(inLastStage('EXPOSE'), '9901 9902');
  });

  test('starts what the build makes, as process 1', () => {
    assert.deepEqual(JSON.parse(inLastStage('ENTRYPOINT') ?? ''), ['node', '/opt/haports/dist/main.js']);
    assert.deepEqual(JSON.parse(inLastStage('CMD') ?? ''), ['run', '-c', '/etc/haports/config.json']);
    assert.equal(inLastStage('WORKDIR'), '/opt/haports');
  });
});

describe('HEALTHCHECK', () => {
  const [, words = '[]'] = /CMD (\[.*\])$/.exec(inLastStage('HEALTHCHECK') ?? '') ?? [];
  const command = JSON.parse(words) as readonly string[];
  let server: Server;
  let status = 200;

  /** Its exit code, run as a container would run it, but for the address that it asks. */
  async function exitCode(url: string): Promise<number | null> {
    const [name = '', ...args] = command;
    return (await runCommand(name, args, { env: { ...process.env, HAPORTS_HEALTHZ: url } })).code;
  }

  before(async () => {
    server = createServer((request, response) => {
      response.writeHead(request.url === '/healthz' ? status : 404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  after(() => server.close());

  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/healthz`;

  test('asks /healthz of the metrics address', () => {
    assert.deepEqual(command.slice(0, 2), ['node', '-e']);
    assert.match(command[2] ?? '', /'http:\/\/127\.0\.0\.1:9902\/healthz'/);
  });

  test('is as well as /healthz is', async () => {
    for (const [answer, code] of [
      [200, 0],
      [503, 1],
    ] as const) {
      status = answer;
      assert.equal(await exitCode(url()), code);
    }
  });

  test('is ill without an answer', async () => {
    const closed = url();
    await new Promise((resolve) => server.close(resolve));
    assert.equal(await exitCode(closed), 1);
  });
});
