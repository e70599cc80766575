import { testStories } from '../../../support/stories.js';
import { WorkerLab, stateOf, tell } from './worker-story.js';

testStories('Data workers', 'test/unit/planes/workers/worker-stories.txt', async ({ situation, lines }) => {
  const lab = new WorkerLab(situation.startsWith('one') ? 1 : 2);
  if (situation.includes(', started')) await lab.plane.start(stateOf(1));
  await tell(lab, lines);
});
