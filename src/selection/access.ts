import { cidrContains, type Cidr, type IpAddress } from '../model/address.js';
import type { Frontend } from '../model/configuration.js';

/** Why a source is let in or not. `block` is the first entry that covers it, where one does. */
export type AccessVerdict =
  | { readonly admitted: true; readonly because: 'no-lists' | 'not-denied' }
  | { readonly admitted: true; readonly because: 'allow'; readonly block: Cidr }
  | { readonly admitted: false; readonly because: 'deny'; readonly block: Cidr }
  | { readonly admitted: false; readonly because: 'not-allowed' };

/** Deny wins over allow; an empty allow list admits every source. */
export function judgeAccess(frontend: Pick<Frontend, 'allow' | 'deny'>, source: IpAddress): AccessVerdict {
  const denying = frontend.deny.find((block) => cidrContains(block, source));
  if (denying !== undefined) return { admitted: false, because: 'deny', block: denying };
  if (frontend.allow.length === 0) {
    return { admitted: true, because: frontend.deny.length === 0 ? 'no-lists' : 'not-denied' };
  }
  const allowing = frontend.allow.find((block) => cidrContains(block, source));
  if (allowing !== undefined) return { admitted: true, because: 'allow', block: allowing };
  return { admitted: false, because: 'not-allowed' };
}

/** As judgeAccess, for the data path: only the verdict, and nothing to do where there are no lists. */
export function isAdmitted(frontend: Pick<Frontend, 'allow' | 'deny'>, source: IpAddress): boolean {
  if (frontend.allow.length === 0 && frontend.deny.length === 0) return true;
  return judgeAccess(frontend, source).admitted;
}
