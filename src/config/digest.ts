import { createHash } from 'node:crypto';

/** JSON with the keys of every object in order, so that equal values have equal text. Takes what JSON.parse gives. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value);
}

/**
 * SHA-256, in hex, of the canonical JSON of what the operator wrote. `$schema` does not count; the contents of files
 * that the configuration names do not either. Nor does the admin token: the digest is in logs and metrics, where a
 * weak token could be found by trying.
 */
export function configurationDigest(raw: unknown): string {
  const counted =
    typeof raw === 'object' && raw !== null && !Array.isArray(raw)
      ? Object.fromEntries(
          Object.entries(raw)
            .filter(([key]) => key !== '$schema')
            .map(([key, value]) => [key, key === 'admin' ? withoutToken(value) : value]),
        )
      : raw;
  return createHash('sha256').update(canonicalJson(counted)).digest('hex');
}

function withoutToken(admin: unknown): unknown {
  if (typeof admin !== 'object' || admin === null) return admin;
  return Object.fromEntries(Object.entries(admin).filter(([key]) => key !== 'token'));
}
