// A test process: imports the test files of its command line (paths below build/test), each inside a suite of its own,
// so that hooks at the top of a file are for that file only.
import { describe } from 'node:test';

for (const file of process.argv.slice(2)) {
  void describe(file, async () => {
    await import(new URL(`../${file}`, import.meta.url).href);
  });
}
