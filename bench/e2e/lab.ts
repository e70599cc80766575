/** Who a process of the bench is; in namespaces each has a network of its own. */
export type Role = 'client' | 'balancer' | 'backend';

/** Where the bench runs: its addresses, and how a process gets to its place. */
export interface Lab {
  readonly kind: 'loopback' | 'netns';
  /** Address of the balancer under test; every peer has its own. `number` 1-200. */
  frontend(number: number): string;
  /** `number` 1-1000. */
  backend(number: number): string;
  /** `number` 1-200. */
  client(number: number): string;
  /** What comes before a command line so that it runs in the place of `role`. */
  prefix(role: Role): readonly string[];
  /** Removes what the lab has set up; never rejects. */
  close(): Promise<void>;
}

/** Loopback: 127.x.0.0/16, x by process id, so that runs do not meet. Linux answers on all of it. */
export function loopbackLab(pid: number = process.pid): Lab {
  const net = `127.${1 + (pid % 254)}`;
  return {
    kind: 'loopback',
    frontend: (number) => `${net}.0.${number}`,
    client: (number) => `${net}.1.${number}`,
    backend: (number) => backendAddress(net, number),
    prefix: () => [],
    close: () => Promise.resolve(),
  };
}

/** 250 backends to a /24, from the third /24 of `net` on. */
export function backendAddress(net: string, number: number): string {
  return `${net}.${2 + Math.floor((number - 1) / 250)}.${1 + ((number - 1) % 250)}`;
}
