/** Whether the first bytes of a stream start an HTTP request; `unclear`: more bytes are needed to tell. */
export function looksLikeHttp(head: string): 'yes' | 'no' | 'unclear' {
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'];
  for (const method of methods) {
    const start = `${method} /`;
    if (head.startsWith(start)) return 'yes';
    if (start.startsWith(head)) return 'unclear';
  }
  return 'no';
}

/** Where a request came in, and from whom as the NVA sees it: the balancer's address, unless that is transparent. */
export interface HttpVisit {
  readonly port: number;
  readonly clientAddress: string;
}

/** The whole answer, as text for the wire, to a request whose head is given. */
export function httpAnswer(name: string, head: string, visit: HttpVisit): string {
  const sentence = `hello from ${name}, port ${visit.port}, your address ${visit.clientAddress}`;
  const wantsHtml = /^accept:[^\r\n]*text\/html/im.test(head);
  const body = wantsHtml
    ? `<!doctype html><meta charset="utf-8"><title>${name}</title><h1>${name}</h1><p>${sentence}</p>\n`
    : `${sentence}\n`;
  const headers = [
    'HTTP/1.1 200 OK',
    `Content-Type: text/${wantsHtml ? 'html' : 'plain'}; charset=utf-8`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    'Connection: close',
  ];
  return `${headers.join('\r\n')}\r\n\r\n${head.startsWith('HEAD ') ? '' : body}`;
}
