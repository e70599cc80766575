/** What it takes to look into /proc. */
export interface ProcFiles {
  /** See Files.readText. */
  readonly readText: (path: string) => Promise<string>;
  /** See readLinks in files.ts. */
  readonly readLinks: (folder: string) => Promise<ReadonlyMap<string, string>>;
}

/**
 * Inodes of the sockets that a process and its children have open, as PortInUse has them. What cannot be read (a child
 * that has just ended, a kernel that tells no children) counts as none. Takes some 20 ms for 1,000 descriptors.
 */
export async function ownSockets(
  { readText, readLinks }: ProcFiles,
  pid: number,
): Promise<ReadonlySet<string>> {
  const children = await readText(`/proc/${pid}/task/${pid}/children`).catch(() => '');
  const inodes = new Set<string>();
  for (const one of [String(pid), ...children.split(' ').filter(Boolean)]) {
    const links = await readLinks(`/proc/${one}/fd`).catch(() => new Map<string, string>());
    for (const target of links.values()) {
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
  }
  return inodes;
}
