import type { PortGate } from '../worker-plane.js';
import type { Listener, ListenerBinding, ListenerFactory } from './listener.js';

/** A factory that asks the gate before it opens a socket, and tells it when the socket is closed. */
export function gatedListeners(factory: ListenerFactory, gate: PortGate): ListenerFactory {
  return {
    async open(binding) {
      const { address, port } = binding;
      const refusal = await gate.claim(address.text, port);
      if (refusal !== undefined) {
        throw Object.assign(new Error(`Cannot listen on ${address.text} port ${port}`), { code: refusal });
      }
      try {
        return new GatedListener(await factory.open(binding), gate);
      } catch (error) {
        gate.release(address.text, port);
        throw error;
      }
    },
  };
}

class GatedListener implements Listener {
  readonly #listener: Listener;
  readonly #gate: PortGate;
  #claimed = true;

  constructor(listener: Listener, gate: PortGate) {
    this.#listener = listener;
    this.#gate = gate;
  }

  get binding(): ListenerBinding {
    return this.#listener.binding;
  }

  serve(): void {
    this.#listener.serve();
  }

  close(): void {
    this.#listener.close();
    this.#release();
  }

  destroy(): void {
    this.#listener.destroy();
    this.#release();
  }

  rawHandle(): object | undefined {
    return this.#listener.rawHandle?.();
  }

  #release(): void {
    if (!this.#claimed) return;
    this.#claimed = false;
    this.#gate.release(this.binding.address.text, this.binding.port);
  }
}
