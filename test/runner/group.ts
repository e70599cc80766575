// A test process: imports the test files of its command line (paths below build/test, or absolute), each inside a suite
// of its own, so that hooks at the top of a file are for that file only.
import { beforeEach, describe } from 'node:test';

const { setImmediate: soon } = globalThis;

// The runner hears which test has begun before the test can keep this process busy.
beforeEach(() => new Promise<void>((resolve) => soon(resolve)));

for (const file of process.argv.slice(2)) {
  void describe(file, async () => {
    await import(new URL(file, new URL('..', import.meta.url)).href);
  });
}
