/** What is open on which local endpoint. Looked up for first datagrams only, and without building strings. */
export class ListenerRegistry<T> {
  readonly #byPort = new Map<number, Map<string, T>>();

  get(address: string, port: number): T | undefined {
    return this.#byPort.get(port)?.get(address);
  }

  set(address: string, port: number, listener: T): void {
    const byAddress = this.#byPort.get(port) ?? new Map<string, T>();
    this.#byPort.set(port, byAddress);
    byAddress.set(address, listener);
  }

  delete(address: string, port: number): void {
    const byAddress = this.#byPort.get(port);
    byAddress?.delete(address);
    if (byAddress?.size === 0) this.#byPort.delete(port);
  }
}
