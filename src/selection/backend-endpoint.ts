import { formatEndpoint, type IpAddress } from '../model/address.js';
import type { Backend } from '../model/configuration.js';
import type { Rule } from '../model/rule.js';

export interface BackendEndpoint {
  readonly address: IpAddress;
  readonly port: number;
}

/**
 * Where a flow that reached `frontendPort` is dialled. Without floating IP: the backend's address, and the port moved
 * by the rule's offset (0 keeps it). With floating IP: the alias on which the backend terminates this frontend, port
 * unchanged.
 *
 * Throws TypeError where floating IP has no alias for the frontend or the port leaves 1-65535: the configuration is
 * refused in both cases, so either is a bug.
 */
export function backendEndpoint(
  rule: Pick<Rule, 'floatingIp' | 'portOffset'>,
  backend: Pick<Backend, 'id' | 'address' | 'floatingAddresses'>,
  frontendName: string,
  frontendPort: number,
): BackendEndpoint {
  if (rule.floatingIp) {
    const alias = backend.floatingAddresses[frontendName];
    if (alias === undefined) {
      throw new TypeError(
        `Cannot dial backend "${backend.id}": floating IP needs an alias for "${frontendName}"`,
      );
    }
    return { address: alias, port: frontendPort };
  }
  const port = frontendPort + rule.portOffset;
  if (port < 1 || port > 65535) {
    throw new TypeError(`Cannot dial ${formatEndpoint(backend.address, port)}: port ${port} must be 1-65535`);
  }
  return { address: backend.address, port };
}
