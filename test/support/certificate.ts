import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** PEM texts. */
export interface Pair {
  readonly certificate: string;
  readonly key: string;
}

/** A self-signed certificate of `name` (`DNS:app.example`, `IP:127.0.0.1`) and its key. Undefined without openssl. */
export function makePair(name = 'DNS:lb1.example'): Pair | undefined {
  const path = mkdtempSync(join(tmpdir(), 'haports-certificate-'));
  try {
    const [key, certificate] = [join(path, 'key.pem'), join(path, 'certificate.pem')];
    const words =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=haports -addext';
    execFileSync(
      'openssl',
      [...words.split(' '), `subjectAltName=${name}`, '-keyout', key, '-out', certificate],
      { stdio: 'pipe' },
    );
    return { key: readFileSync(key, 'utf8'), certificate: readFileSync(certificate, 'utf8') };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  } finally {
    rmSync(path, { recursive: true });
  }
}
