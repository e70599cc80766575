import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { WorkerLab, stateOf, tell } from './worker-story.js';

const FILE = join(process.cwd(), 'test/unit/planes/workers/worker-stories.txt');

for (const part of readFileSync(FILE, 'utf8').split('\n# ').slice(1)) {
  const [situation = '', ...stories] = part.split('\n## ');
  const workers = situation.startsWith('one') ? 1 : 2;
  describe(`Data workers: ${situation.trim()}`, () => {
    for (const story of stories) {
      const [title = '', ...lines] = story.split('\n');
      test(title, async () => {
        const lab = new WorkerLab(workers);
        if (situation.includes(', started')) await lab.plane.start(stateOf(1));
        await tell(lab, lines);
      });
    }
  });
}
