/**
 * Fetches the hourly counts of GET /query, caches them and keeps them up to date, with the
 * interface of the data model's client. It needs answer.js alone, so that any dashboard can use it.
 *
 *   const store = createStore({ baseUrl: 'https://steep.example', getToken: () => token });
 *   store.subscribe(() => draw(store.historicData, store.historicDataStatus));
 *   store.fetchHistoricData(7);
 */

import { QueryError, sendQuery } from './answer.js';

/**
 * @template {GroupBy} G
 * @typedef {import('./answer.js').Rows[G]} Row
 */
/** @typedef {import('./answer.js').GroupBy} GroupBy */
/** @typedef {import('./answer.js').Query} Query */
/** @typedef {import('./answer.js').HourlyAggregate} HourlyAggregate */

/** @typedef {'idle' | 'loading' | 'error' | 'success'} HistoricStatus */

/**
 * What the store holds for the days and source that were requested last.
 * @template {GroupBy} G
 * @typedef {object} HistoricState
 * @property {readonly Row<G>[]} historicData           empty until loaded; kept when a refresh fails
 * @property {HistoricStatus} historicDataStatus
 * @property {number | null} historicDataFetchedAt      the server's time, in ms since 1970
 * @property {string | null} historicDataError          a sentence for the user
 * @property {number | null} historicDataErrorStatus    the HTTP status, if the server answered; also 401
 *                                                      for a token with invalid characters
 * @property {7 | 30 | null} historicDays
 * @property {string | null} historicSource             null for all sources
 * @property {number | null} historicRequest            the number of the request, from 1
 */

/**
 * @typedef {object} Clock
 * @property {() => number} now  ms; never jumps, and continues while the machine sleeps
 * @property {(action: () => void, delay: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/**
 * @template {GroupBy} G
 * @typedef {object} StoreOptions
 * @property {string} baseUrl         /query is appended; '/' is the page's own server, '' disables the store
 * @property {() => string} getToken  called before each request
 * @property {G} [groupBy]            'hour' for rows of date, hour and eventCount, summed over the sources;
 *                                    'source' for rows of source and eventCount; by default, the rows of
 *                                    each source and hour
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Clock} [clock]
 * @property {Document} [document]    for its visibility and its window's online events
 */

/**
 * @template {GroupBy} G
 * @typedef {object} CachedAnswer
 * @property {readonly Row<G>[]} aggregates
 * @property {number} fetchedAt  the server's time
 * @property {number} request    the number of the request
 * @property {number} staleAt    the clock's time
 */

const HOUR_MS = 3_600_000;
const MAX_AGE_MS = 300_000;
// However soon the hour ends.
const MIN_AGE_MS = 10_000;
const MIN_BACKOFF_MS = 4_000;
const MAX_BACKOFF_MS = 300_000;
// Timers stop while the machine sleeps, so a long wait is split into short ones.
const MAX_TIMER_MS = 15_000;
const MIN_SLEEP_MS = 60_000;
// So that not all dashboards refresh at the full hour.
const REFRESH_JITTER_MS = 2_000;

/** @type {HistoricState<any>} */
const IDLE = Object.freeze({
  historicData: Object.freeze([]), historicDataStatus: 'idle', historicDataFetchedAt: null,
  historicDataError: null, historicDataErrorStatus: null, historicDays: null, historicSource: null,
  historicRequest: null,
});

let slept = 0;
let clockOffset = Date.now() - performance.now();

/**
 * performance.now() may stop while the machine sleeps; Date.now() does not, but can be set. Counts
 * a large forward jump of Date.now() as sleep, so that old counts are not taken for fresh ones.
 */
function monotonicNow() {
  const before = clockOffset;
  clockOffset = Date.now() - performance.now();
  slept += clockOffset - before > MIN_SLEEP_MS ? clockOffset - before : 0;
  return performance.now() + slept;
}

/** @type {Clock} */
const browserClock = {
  now: monotonicNow,
  setTimeout: (action, delay) => setTimeout(action, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

/**
 * @template {GroupBy} [G='']
 * @param {StoreOptions<G>} options
 */
export function createStore({
  baseUrl, getToken, groupBy = /** @type {G} */ (''), fetch = (...args) => globalThis.fetch(...args),
  clock = browserClock, document = globalThis.document,
}) {
  const enabled = baseUrl !== '';
  const url = `${baseUrl.replace(/\/+$/, '')}/query`;
  /** @type {Map<string, CachedAnswer<G>>} */
  const cache = new Map();
  /** @type {Set<() => void>} */
  const listeners = new Set();
  /** @type {HistoricState<G>} */
  let state = IDLE;
  /** @type {Query | null} the days and source to show */
  let selected = null;
  /** @type {{ key: string, controller: AbortController, promise: Promise<void> } | null} */
  let pending = null;
  /**
   * The last failure. If the query was invalid, key is the query's; otherwise it is null, and the
   * store retries at retryAt. The server allows no request before earliestRetryAt.
   * @type {{ key: string | null, error: QueryError, retryAt: number, earliestRetryAt: number } | null}
   */
  let failure = null;
  let failures = 0;
  let requests = 0;
  /** @type {{ server: number, clock: number } | null} the same instant by both clocks */
  let serverTime = null;
  /** @type {unknown} */
  let timer = null;

  /** @param {Query} query */
  const keyOf = ({ days, source }) => `${days} ${source ?? ''}`;

  /** @param {string} key */
  const failureOf = (key) => (failure && (failure.key ?? key) === key ? failure : null);

  /**
   * @param {HistoricStatus} status
   * @param {QueryError | null} error
   */
  function setState(status, error = null) {
    const cached = selected && cache.get(keyOf(selected));
    state = !selected ? IDLE : Object.freeze({
      historicData: cached ? cached.aggregates : IDLE.historicData,
      historicDataStatus: status,
      historicDataFetchedAt: cached ? cached.fetchedAt : null,
      historicDataError: error && error.message,
      historicDataErrorStatus: error && error.status,
      historicDays: selected.days,
      historicSource: selected.source,
      historicRequest: cached ? cached.request : null,
    });
    for (const listener of [...listeners]) {
      listener();
    }
  }

  /** The ms until the next refresh or retry; null if none is due. */
  function dueIn() {
    if (!selected || pending) {
      return null;
    }
    const key = keyOf(selected);
    const failed = failureOf(key);
    const staleAt = cache.get(key)?.staleAt ?? 0;
    const now = clock.now();
    // An invalid query stays invalid: no retry.
    const hasTimer = now < staleAt || (failed && !failed.key);
    return hasTimer ? Math.max(0, staleAt - now, failed ? failed.retryAt - now : 0) : null;
  }

  function schedule() {
    clock.clearTimeout(timer);
    const due = dueIn();
    timer = due === null ? null : clock.setTimeout(refresh, Math.min(MAX_TIMER_MS, due));
  }

  /** @param {boolean} skipBackoff */
  function refresh(skipBackoff = false) {
    if (!selected || document.visibilityState === 'hidden' || failureOf(keyOf(selected))?.key) {
      return;
    }
    if (dueIn() && !skipBackoff) {
      schedule();
    } else {
      showOrFetch(skipBackoff);
    }
  }

  /**
   * Shows the cached answer, or the last failure while the store waits, or sends a request.
   * @param {boolean} skipBackoff  wait only as long as the server's Retry-After
   */
  function showOrFetch(skipBackoff = false) {
    const query = /** @type {Query} */ (selected);
    const key = keyOf(query);
    if (pending?.key === key) {
      return pending.promise;
    }
    pending?.controller.abort();
    pending = null;
    const cached = cache.get(key);
    const failed = failureOf(key);
    if (cached && clock.now() < cached.staleAt) {
      setState('success');
    } else if (failed && clock.now() < (skipBackoff ? failed.earliestRetryAt : failed.retryAt)) {
      setState('error', failed.error);
    } else {
      return send(key, query);
    }
    schedule();
    return Promise.resolve();
  }

  /**
   * @param {string} key
   * @param {Query} query
   */
  function send(key, query) {
    const request = ++requests;
    const controller = new AbortController();
    /** @type {{ key: string, controller: AbortController, promise: Promise<any> }} */
    const own = { key, controller, promise: Promise.resolve() };
    pending = own;
    own.promise = sendQuery(query, groupBy, { url, getToken, fetch, clock, controller }).then(
      // Ignore the answer of a request that another one has replaced.
      (answer) => { pending === own && succeed(key, request, answer); },
      (reason) => { pending === own && fail(key, reason); },
    );
    schedule();
    setState('loading');
    return own.promise;
  }

  /**
   * @param {string} key
   * @param {number} request
   * @param {{ aggregates: readonly Row<G>[], fetchedAt: number, begunAt: number }} answer
   */
  function succeed(key, request, { aggregates, fetchedAt, begunAt }) {
    pending = null;
    failure = null;
    failures = 0;
    const now = clock.now();
    // The rest of the answer may have taken minutes.
    serverTime = { server: fetchedAt, clock: begunAt };
    // Refresh when the hour ends, because its count is complete then.
    const hourEndsIn = begunAt - now + HOUR_MS - (fetchedAt % HOUR_MS) + Math.random() * REFRESH_JITTER_MS;
    for (const [other, { staleAt }] of cache) {
      if (staleAt <= now) {
        cache.delete(other);
      }
    }
    const maxAge = Math.max(MIN_AGE_MS, Math.min(MAX_AGE_MS, hourEndsIn));
    cache.set(key, { aggregates, fetchedAt, request, staleAt: now + maxAge });
    schedule();
    setState('success');
  }

  /**
   * @param {string} key
   * @param {unknown} reason
   */
  function fail(key, reason) {
    pending = null;
    const error = reason instanceof QueryError ? reason : new QueryError('The server can’t be reached.');
    const { status, retryAfter, date } = error;
    const now = clock.now();
    if (!serverTime && date === date) {
      serverTime = { server: date, clock: now };
    }
    const maxBackoff = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** failures++);
    const backoff = maxBackoff * (1 + Math.random()) / 2;
    failure = {
      key: status && status >= 400 && status < 500 && status !== 429 && status !== 408 ? key : null,
      error,
      retryAt: now + Math.max(backoff, retryAfter),
      earliestRetryAt: now + retryAfter,
    };
    schedule();
    setState('error', error);
  }

  /** Clears the cache and cancels a pending request. */
  function clearHistoricData() {
    pending?.controller.abort();
    pending = selected = failure = serverTime = null;
    failures = 0;
    cache.clear();
    schedule();
    setState('idle');
  }

  const onVisibility = () => document.visibilityState === 'visible' && refresh();
  const onOnline = () => refresh(true);
  if (enabled) {
    document.addEventListener('visibilitychange', onVisibility);
    document.defaultView?.addEventListener('online', onOnline);
  }

  return {
    /** Whether there is a base URL. Without one, the store sends no requests. */
    enabled,
    get historicData() { return state.historicData; },
    get historicDataStatus() { return state.historicDataStatus; },
    get historicDataFetchedAt() { return state.historicDataFetchedAt; },
    get historicDataError() { return state.historicDataError; },
    /** The whole state, as a frozen object that is replaced at each change. */
    getState: () => state,

    /**
     * Selects the days and the source to show, from the cache or from the server. If the request
     * fails, historicDataError says why; the promise is never rejected.
     * @param {7 | 30} days
     * @param {string | null} source  one source, or null for all
     * @returns {Promise<void>}
     */
    fetchHistoricData(days, source = null) {
      if (days !== 7 && days !== 30) {
        throw new RangeError('days must be 7 or 30');
      }
      selected = enabled ? { days, source } : null;
      return selected ? showOrFetch() : Promise.resolve();
    },

    /**
     * Retries after an error without waiting for the backoff, but not before the time that the
     * server gave in Retry-After.
     * @returns {Promise<void>}
     */
    retryHistoricData: () => (selected ? showOrFetch(true) : Promise.resolve()),

    clearHistoricData,

    /**
     * @param {() => void} listener  called after each change
     * @returns {() => void} unsubscribes
     */
    subscribe(listener) {
      listeners.add(listener);
      return () => { listeners.delete(listener); };
    },

    /** The server's current time, in ms since 1970; null until an answer contained it. */
    now: () => serverTime && serverTime.server + (clock.now() - serverTime.clock),

    /** How many requests were sent: the number to pass to live.add with a live event. */
    get requests() { return requests; },

    /** The number of the oldest request whose answer may still be shown. */
    get oldestRequest() {
      return Math.min(requests, ...Array.from(cache.values(), ({ request }) => request));
    },

    /** The ms until the store retries after an error; null if it will not. */
    retryIn() {
      const failed = selected && !pending && failureOf(keyOf(selected));
      return failed && !failed.key ? Math.max(0, failed.retryAt - clock.now()) : null;
    },

    /** Stops all timers and requests. */
    close() {
      document.removeEventListener('visibilitychange', onVisibility);
      document.defaultView?.removeEventListener('online', onOnline);
      listeners.clear();
      clearHistoricData();
    },
  };
}

/**
 * @template {GroupBy} [G='']
 * @typedef {ReturnType<typeof createStore<G>>} Store
 */
