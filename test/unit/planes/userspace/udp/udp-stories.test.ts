import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { UdpStory, type Setting } from './udp-story.js';

const FILE = join(process.cwd(), 'test/unit/planes/userspace/udp/udp-stories.txt');

for (const part of readFileSync(FILE, 'utf8').split('\n# ').slice(1)) {
  const [heading = '', ...stories] = part.split('\n## ');
  const [, situation = '', setting = ''] = /^(.*?) (\{.*\})$/.exec(heading.trim()) ?? [];
  describe(`UDP: ${situation}`, () => {
    for (const story of stories) {
      const [title = '', ...lines] = story.split('\n');
      test(title, async (t) => {
        const told = await UdpStory.begin(t, JSON.parse(setting) as Setting);
        for (const line of lines.filter((one) => one.trim() !== '')) await told.tell(line);
      });
    }
  });
}
