import { pathToFileURL } from 'node:url';
import type { Answer } from './observe.js';

/*
 * Runs many command lines of one main.js in this process, each by evaluating the module again with other arguments: a
 * process of its own takes half a second, this a few milliseconds. Only what the shell sees is used: arguments, working
 * directory, output, exit code. `record --isolated` gives each command line a process and must find the same.
 *
 *   echo '[["check","-c","a.json"]]' | node run-many.js dist/main.js
 */

const main = process.argv[2] ?? '';
const url = pathToFileURL(main).href;
const print = process.stdout.write.bind(process.stdout);

async function answerTo(args: readonly string[], index: number): Promise<Answer> {
  const written = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean => {
      written[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
      const done = rest.find((item): item is () => void => typeof item === 'function');
      if (done !== undefined) process.nextTick(done);
      return true;
    };
  }
  process.argv = [process.execPath, main, ...args];
  process.exitCode = undefined;
  await import(`${url}?${index}`);
  return { exitCode: exitCodeNow(), ...written };
}

/** Set by the module; TypeScript takes it for what was assigned last here. */
function exitCodeNow(): number {
  return Number(process.exitCode ?? 0);
}

process.setMaxListeners(0);
for (const stream of [process.stdout, process.stderr]) stream.setMaxListeners(0);
let input = '';
for await (const chunk of process.stdin) input += String(chunk);
for (const [index, args] of (JSON.parse(input) as string[][]).entries()) {
  print(`${JSON.stringify(await answerTo(args, index))}\n`);
}
process.exitCode = 0;
