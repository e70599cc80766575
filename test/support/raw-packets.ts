import { join } from 'node:path';

/** A script for perl, which has raw sockets, as Node has not. It says itself how it is used. */
export const RAW_PACKETS = join(process.cwd(), 'test', 'support', 'raw-packets.pl');
