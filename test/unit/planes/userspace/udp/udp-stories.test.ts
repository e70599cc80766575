import { testStories } from '../../../../support/stories.js';
import { UdpStory, type Setting } from './udp-story.js';

testStories('UDP', 'test/unit/planes/userspace/udp/udp-stories.txt', async ({ setting, lines }, t) => {
  const story = await UdpStory.begin(t, setting as Setting);
  for (const line of lines) await story.tell(line);
});
