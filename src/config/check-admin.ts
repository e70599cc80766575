import { formatEndpoint, isLoopback } from '../model/address.js';
import type { Draft } from './draft.js';
import { error, warning, type Issue } from './finding.js';

/** Who could reach the admin API, and whether anybody could. */
export function adminIssues({ root: { admin } }: Draft): readonly Issue[] {
  if (admin === undefined) return [];
  const { socket, http, tls, token } = admin;
  if (http === undefined) {
    const idle = (['tls', 'token'] as const).filter((key) => admin[key] !== undefined);
    return [
      ...(socket === undefined
        ? [
            error('LB_MISSING_KEY', ['admin'], 'The admin API can be reached nowhere', {
              found: 'neither "socket" nor "http"',
              expected: '"socket", "http" or both',
            }),
          ]
        : []),
      ...idle.map((key) =>
        warning('LB_NO_EFFECT', ['admin', key], `"${key}" has no effect without "http"`, {
          reason: 'The Unix socket is guarded by its mode, 0600, and by nothing else',
        }),
      ),
    ];
  }
  const missing = [...(tls === undefined ? ['tls'] : []), ...(token === undefined ? ['token'] : [])];
  if (isLoopback(http.address) || missing.length === 0) return [];
  const place = formatEndpoint(http.address, http.port);
  return [
    error('LB_ADMIN_EXPOSED', ['admin', 'http'], `The admin API would be open to others on ${place}`, {
      found: `"${place}" without ${missing.join(' and ')}`,
      expected: 'a loopback address such as "127.0.0.1:9901", or both "tls" and "token"',
      reason: 'Whoever reaches the admin API can drain every backend and replace the configuration',
    }),
  ];
}
