// A test process: imports the test files of its command line (paths below build/test, or absolute), each inside a suite
// of its own, so that hooks at the top of a file are for that file only.
import { AsyncResource } from 'node:async_hooks';
import { beforeEach, describe } from 'node:test';

// The runner's options are for this process: a data worker that a test forks would inherit them.
process.execArgv = [];

const { setImmediate: soon } = globalThis;

// The runner hears which test has begun before the test can keep this process busy.
beforeEach(() => new Promise<void>((resolve) => soon(resolve)));

// One after the other: the tests of modules that load at the same time go to the suite of the one that asked first for a
// module that they share. A suite knows its tests by the asynchronous context, which waiting for another one would change.
let loaded: Promise<unknown> = Promise.resolve();
for (const file of process.argv.slice(2)) {
  const url = new URL(file, new URL('..', import.meta.url)).href;
  void describe(file, () => {
    const load = AsyncResource.bind(() => import(url));
    return (loaded = loaded.then(load, load));
  });
}
