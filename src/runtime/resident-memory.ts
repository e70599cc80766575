import { systemFiles, type Files } from './files.js';

export interface ResidentMemory {
  /** This one and its children. */
  readonly processes: number;
  /** Resident set sizes added up: pages that several share count for each. What sockets take of the kernel is not in it. */
  readonly bytes: number;
}

/** Of this process and its children; undefined where the system has no /proc. */
export async function residentMemory(files: Files = systemFiles): Promise<ResidentMemory | undefined> {
  try {
    const { pid } = process;
    const children = await files.readText(`/proc/${pid}/task/${pid}/children`);
    const pids = [String(pid), ...children.split(' ').filter((child) => child.trim() !== '')];
    const sizes = await Promise.all(pids.map((one) => residentBytes(files, one.trim())));
    return { processes: pids.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } catch {
    return undefined;
  }
}

/** 0 for one that has ended meanwhile. */
async function residentBytes(files: Files, pid: string): Promise<number> {
  const status = await files.readText(`/proc/${pid}/status`).catch(() => '');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}
