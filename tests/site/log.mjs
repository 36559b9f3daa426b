/** What the site was asked, newest last; bounded, so that a soak does not fill the memory. */
export class RequestLog {
  static #KEPT = 20_000;
  #entries = [];
  #next = 0;

  add(request, url) {
    const { cookie, authorization, referer, 'user-agent': userAgent } = request.headers;
    this.#entries.push({
      n: this.#next,
      method: request.method,
      host: request.headers.host,
      path: url.pathname,
      query: url.search,
      cookie,
      authorization,
      referer,
      userAgent,
    });
    this.#next += 1;
    if (this.#entries.length > RequestLog.#KEPT) this.#entries.shift();
  }

  /** The entries from number `since` on whose path starts with `path`. */
  read({ since = 0, path = '/' } = {}) {
    return this.#entries.filter((entry) => entry.n >= since && entry.path.startsWith(path));
  }

  clear() {
    this.#entries = [];
  }
}
