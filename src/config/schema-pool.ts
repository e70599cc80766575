import { z } from 'zod';
import { durationField, hostAddressField, integerField, nameField, portSetField } from './fields.js';

export const backendSchema = z
  .strictObject({
    name: nameField()
      .describe('Label of the backend, unique in its pool. Default: its address')
      .exactOptional(),
    address: hostAddressField().describe(
      'Address of the backend, IPv4 or IPv6. With the name of the pool it is its identity',
    ),
    weight: integerField(0, 256)
      .describe("Share of new flows relative to the pool's other backends; 0: no new flows")
      .default(1),
    priority: integerField(0, 255)
      .describe(
        'The group with the lowest number that has minimumHealthy members up serves; the others stand by',
      )
      .default(0),
    adminState: z
      .enum(['none', 'up', 'down'])
      .describe('none: follow the probe. up, down: whatever the probe says')
      .default('none'),
    maxConnections: integerField(1, 1_000_000)
      .describe("TCP flows at a time. Default: the pool's")
      .exactOptional(),
    floatingAddresses: z
      .record(nameField(), hostAddressField())
      .describe(
        'Frontend name to the address on which this backend terminates that frontend (its loopback alias), ' +
          'for rules with floatingIp',
      )
      .prefault({}),
  })
  .describe('One target address');

export const backendPoolSchema = z
  .strictObject({
    name: nameField().describe('Name of the pool, unique among pools'),
    minimumHealthy: integerField(1, 65534)
      .describe('Members up that a priority group needs to serve')
      .default(1),
    sourceAddresses: z
      .array(hostAddressField())
      .describe("Local addresses of connections to the backends, used in turn. Empty: the machine's choice")
      .prefault([]),
    sourcePorts: portSetField()
      .describe('Local ports of connections to the backends, where haports chooses them')
      .prefault('32768-60999'),
    proxyProtocol: z
      .enum(['none', 'v1', 'v2'])
      .describe("PROXY protocol header sent on each TCP flow, with the client's address in it")
      .default('none'),
    connectTimeout: durationField(10, 600_000)
      .describe('How long one attempt to connect may take, 10ms to 10m')
      .prefault('5s'),
    connectAttempts: integerField(1, 16)
      .describe('Backends tried before a new TCP flow is given up')
      .default(3),
    maxConnections: integerField(1, 1_000_000)
      .describe('TCP flows at a time of each backend that does not say otherwise. Default: no cap')
      .exactOptional(),
    slowStart: durationField(1000, 3_600_000)
      .describe(
        'Time in which a backend that joins others grows to its full weight, 1s to 1h. Default: full weight at once',
      )
      .exactOptional(),
    backends: z.array(backendSchema).describe('The members; order does not matter to the hash'),
  })
  .describe('A named set of backends');

export type BackendInput = z.output<typeof backendSchema>;
export type BackendPoolInput = z.output<typeof backendPoolSchema>;
