import { basename, dirname } from 'node:path';
import type { Clock } from './clock.js';
import type { FileChanges, Files } from './files.js';
import { SerialQueue } from './queue.js';

/** Time for an editor to finish a save: a change is looked at when it has been quiet for this long. */
const SETTLE_MS = 200;

/**
 * Folder notifications miss what happens behind symbolic links and on network file systems: what the file looks like
 * from outside is compared this often as well.
 */
const POLL_MS = 2000;

export interface FileWatchDeps {
  readonly clock: Clock;
  readonly files: Files;
  readonly changes: FileChanges;
}

/**
 * Calls with the whole text each time the content of a file has changed: written in place, replaced by a rename (as
 * editors do), or behind a symbolic link that was swapped (as Kubernetes does). A file that is missing or cannot be
 * read for a while is waited for; the same content again is no change. Resolves when the content of now is known;
 * never rejects. The returned function stops it.
 */
export async function watchFile(
  deps: FileWatchDeps,
  path: string,
  onChange: (text: string) => void,
): Promise<() => void> {
  const { clock, files, changes } = deps;
  const look = async (): Promise<string | undefined> => {
    const seen = await changes.signature(path).catch(() => undefined);
    const text = await files.readText(path).catch(() => undefined);
    // The signature from before the read: what changes in between is seen at the next poll.
    signature = seen;
    return text;
  };
  let isStopped = false;
  let signature: string | undefined;
  let known = await look();

  // One look at a time, so that an older content never comes after a newer one.
  const looks = new SerialQueue();
  const compare = (): void => {
    void looks.run(async () => {
      const text = await look();
      if (isStopped || text === undefined || text === known) return;
      known = text;
      onChange(text);
    });
  };

  let cancelSettle: () => void = () => undefined;
  const changed = (): void => {
    cancelSettle();
    cancelSettle = clock.setTimer(SETTLE_MS, compare, { unref: true });
  };
  let cancelPoll: () => void = () => undefined;
  const poll = (): void => {
    cancelPoll = clock.setTimer(
      POLL_MS,
      () => {
        void changes
          .signature(path)
          .catch(() => undefined)
          .then((now) => {
            if (isStopped) return;
            if (now !== signature) changed();
            poll();
          });
      },
      { unref: true },
    );
  };
  const closeFolder = changes.watchFolder(dirname(path), (name) => {
    // A log in the same folder is written all the time. Kubernetes swaps a link named `..data`.
    if (name === undefined || name === basename(path) || name.startsWith('..')) changed();
  });
  poll();
  return () => {
    isStopped = true;
    cancelSettle();
    cancelPoll();
    closeFolder();
  };
}
