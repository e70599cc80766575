/**
 * A /24 of 127.0.0.0/8 that no other test process uses, one for each `salt` up to 60: with addresses of its own a test may use any port. Linux
 * answers on all of 127.0.0.0/8 without configuration.
 */
export function loopbackBlock(salt = 0): (host: number) => string {
  // 127.0.x.y is left to people and to the embedded default.
  const index = (process.pid * 61 + salt) % (254 * 256);
  const second = 1 + Math.floor(index / 256);
  const third = index % 256;
  return (host) => `127.${second}.${third}.${host}`;
}
