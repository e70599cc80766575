import type { Explanation } from '../../src/api/views.js';
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { before, describe, test } from 'node:test';
import { StateFactory, type Conditions } from '../support/state-factory.js';
import { within } from '../support/deadline.js';
import { haportsHere } from '../support/command-here.js';
import { loopbackBlock } from '../support/loopback.js';
import { NVA_PROBE, useService } from '../support/service.js';
import { parseIpAddress, type Protocol } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { explain } from '../../src/selection/explain.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';

const FLOWS = 300;
const CLI_FLOWS = 3;
const host = loopbackBlock();
const FRONTEND = host(1);

interface Client {
  readonly protocol: Protocol;
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly port: number;
}

/** A source address and port that were free when asked for, at random. */
function randomClient(protocol: Protocol): Client {
  const random = (first: number, count: number): number => first + Math.floor(Math.random() * count);
  return {
    protocol,
    sourceAddress: host(random(100, 100)),
    sourcePort: random(1024, 64_512),
    port: random(7000, 20),
  };
}

/** Who answers this very five-tuple. */
async function ask(client: Client): Promise<string> {
  const { protocol, sourceAddress, sourcePort, port } = client;
  let close: () => void = () => undefined;
  const answer = new Promise<string>((resolve, reject) => {
    if (protocol === 'tcp') {
      const options = { host: FRONTEND, port, localAddress: sourceAddress, localPort: sourcePort };
      const socket = connect(options, () => socket.write('who'));
      socket.once('data', (data: Buffer) => resolve(data.toString()));
      socket.once('error', reject);
      // A RST leaves no TIME_WAIT behind.
      close = () => socket.resetAndDestroy();
    } else {
      const socket = createSocket('udp4');
      const send = (): void => socket.send('who', port, FRONTEND);
      const again = setInterval(send, 1000);
      socket.once('message', (data) => resolve(data.toString()));
      socket.once('error', reject);
      socket.bind(sourcePort, sourceAddress, send);
      close = () => {
        clearInterval(again);
        socket.close();
      };
    }
  });
  try {
    return (await within(answer, 5000, `an answer to ${JSON.stringify(client)}`)).split(':')[0]!;
  } finally {
    close();
  }
}

void describe('explain predicts what the built process does', () => {
  const service = useService({
    ports: [7000, 7019],
    workers: 1,
    probe: NVA_PROBE,
    pool: {
      // Unequal weights, so that a prediction that forgot them would be wrong.
      backends: [1, 2, 3].map((n) => ({ name: `nva-${n}`, address: host(10 + n), weight: n })),
    },
    rule: { symmetric: true },
    top: { seed: 12345 },
  });
  let states: StateFactory;
  let picker: Picker;

  before(async () => {
    states = await StateFactory.create();
    picker = new Picker(await createHasher());
  });

  const state = (conditions: Conditions = {}): ForwardingState =>
    states.state(service.process.withSocket(service.configuration()), conditions);

  const predict = (state: ForwardingState, client: Client): Explanation => {
    const [source, destination] = [parseIpAddress(client.sourceAddress), parseIpAddress(FRONTEND)];
    assert.ok(source !== undefined && destination !== undefined);
    return explain(picker, state, {
      protocol: client.protocol,
      source,
      sourcePort: client.sourcePort,
      destination,
      destinationPort: client.port,
    });
  };

  const nameOf = ({ candidates }: Explanation): string | undefined =>
    candidates.find(({ chosen }) => chosen)?.name;

  /** Asks from random tuples; where a client's port is taken just now, another one is drawn. */
  const compare = async (state: ForwardingState) => {
    const share = new Map<string, number>();
    const asked: { client: Client; backend: string }[] = [];
    const one = async (protocol: Protocol): Promise<void> => {
      for (;;) {
        const client = randomClient(protocol);
        try {
          asked.push({ client, backend: await ask(client) });
          return;
        } catch (error) {
          const code = error instanceof Error && 'code' in error ? error.code : undefined;
          if (code !== 'EADDRINUSE' && code !== 'EADDRNOTAVAIL') throw error;
        }
      }
    };
    const protocols = Array.from({ length: FLOWS }, (_, index): Protocol =>
      index % 2 === 0 ? 'tcp' : 'udp',
    );
    while (protocols.length > 0) await Promise.all(protocols.splice(0, 50).map(one));
    for (const { client, backend } of asked) {
      share.set(backend, (share.get(backend) ?? 0) + 1);
      assert.equal(nameOf(predict(state, client)), backend, `wrong about ${JSON.stringify(client)}`);
    }
    return { asked, share };
  };

  const compareCommand = async (
    asked: readonly { client: Client; backend: string }[],
    args: readonly string[],
  ): Promise<void> => {
    for (const { client, backend } of asked.slice(0, CLI_FLOWS)) {
      const { protocol, sourceAddress, sourcePort, port } = client;
      const flow = [protocol, `${sourceAddress}:${sourcePort}`, `${FRONTEND}:${port}`];
      const result = await haportsHere([
        'explain',
        '-c',
        service.process.configPath,
        '--json',
        ...flow,
        ...args,
      ]);
      assert.equal(result.code, 0, result.stderr);
      assert.equal(nameOf(JSON.parse(result.stdout) as Explanation), backend);
      const text = await haportsHere(['explain', '-c', service.process.configPath, ...flow, ...args]);
      assert.match(text.stdout, new RegExp(`goes to ${backend} at `));
    }
  };

  void test(`${FLOWS} random flows go where explain -c says`, async (t) => {
    const { asked, share } = await compare(state());
    t.diagnostic([...share].map(([name, n]) => `${name} ${n}`).join(', '));
    assert.equal(share.size, 3);
    await compareCommand(asked, []);
  });

  void test(`${FLOWS} random flows go where explain -c --down says while a probe fails`, async (t) => {
    await service.nvas[2]!.setHealth('sick');
    await service.probeSays('nva-3', 0);
    const { asked, share } = await compare(state({ health: { 'nva-3': 'down' } }));
    t.diagnostic([...share].map(([name, n]) => `${name} ${n}`).join(', '));
    assert.deepEqual([...share.keys()].sort(), ['nva-1', 'nva-2']);
    await compareCommand(asked, ['--down', 'nvas/nva-3']);
  });

  void test('the digest that explain names is that of the running process', async () => {
    const info = (await service.process.metrics()).find(({ name }) => name === 'haports_config_info');
    assert.equal(state().configuration.digest, info?.labels['digest']);
  });
});
