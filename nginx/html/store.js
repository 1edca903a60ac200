/**
 * The hourly counts of GET /query, with the interface of the data model's client. It needs no
 * other file, so that a dashboard elsewhere can take it as it is.
 *
 *   const store = createStore({ baseUrl: 'https://steep.example', getToken: () => token });
 *   store.subscribe(() => draw(store.historicData, store.historicDataStatus));
 *   store.fetchHistoricData(7);
 */

/**
 * @typedef {object} HourlyAggregate
 * @property {string} source      the monitor's name
 * @property {string} date        YYYY-MM-DD, in UTC
 * @property {number} hour        0 to 23, in UTC
 * @property {number} eventCount
 */

/** @typedef {'idle' | 'loading' | 'error' | 'success'} HistoricStatus */

/**
 * What the store holds, of the days and the source asked for last.
 * @typedef {object} HistoricState
 * @property {readonly HourlyAggregate[]} historicData  empty until loaded; kept when a refresh fails
 * @property {HistoricStatus} historicDataStatus
 * @property {number | null} historicDataFetchedAt      the server's time, in ms since 1970
 * @property {string | null} historicDataError          a sentence
 * @property {number | null} historicDataErrorStatus    the HTTP status, if there was an answer; 401 as
 *                                                      well for a token that can't be sent
 * @property {7 | 30 | null} historicDays
 * @property {string | null} historicSource             null for all of them
 * @property {number | null} historicRequest            which request the data answers, from 1 on
 */

/**
 * @typedef {object} Clock
 * @property {() => number} now  ms that never jump, and go on while the machine sleeps
 * @property {(action: () => void, delay: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/**
 * @typedef {object} StoreOptions
 * @property {string} baseUrl         /query is appended; '/' is this page's own server, '' disables the store
 * @property {() => string} getToken  asked before each request
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Clock} [clock]
 * @property {Document} [document]    whose visibility counts, and its window's connection
 */

/**
 * @typedef {object} Answer
 * @property {readonly HourlyAggregate[]} aggregates
 * @property {number} fetchedAt
 * @property {number} request
 * @property {number} staleAt  by the clock
 */

/** @typedef {{ days: 7 | 30, source: string | null }} Question */

const HOUR = 3_600_000;
const STALE_AFTER = 300_000;
const GIVE_UP_AFTER = 5_000;
const FIRST_PAUSE = 4_000;
const LONGEST_PAUSE = 300_000;
const LONGEST_RETRY_AFTER = 86_400_000;
// However often an hour ends by what the answers say.
const LEAST_FRESH = 10_000;
// A timer doesn't run on while the machine sleeps, so none is waited for longer.
const LONGEST_NAP = 15_000;
const LEAST_SLEEP = 60_000;
// Not every dashboard in the world at the full hour.
const HOUR_SPREAD = 2_000;

/** @type {HistoricState} */
const IDLE = Object.freeze({
  historicData: Object.freeze([]), historicDataStatus: 'idle', historicDataFetchedAt: null,
  historicDataError: null, historicDataErrorStatus: null, historicDays: null, historicSource: null,
  historicRequest: null,
});

/** Why there are no counts, in a sentence for people. */
class Refusal extends Error {
  /**
   * @param {string} sentence
   * @param {number | null} status
   * @param {number} pause  ms that the server asks to wait
   * @param {number} date   the server's time, NaN where it can't be known
   */
  constructor(sentence, status = null, pause = 0, date = NaN) {
    super(sentence);
    this.status = status;
    this.pause = pause;
    this.date = date;
  }
}

let slept = 0;
let ahead = Date.now() - performance.now();

/**
 * performance.now() may stand still while the machine sleeps. Date.now() doesn't, but can be set;
 * a great leap of it is taken for a sleep, so that afterwards no count passes for a fresh one.
 */
function timeAwakeOrAsleep() {
  const before = ahead;
  ahead = Date.now() - performance.now();
  slept += ahead - before > LEAST_SLEEP ? ahead - before : 0;
  return performance.now() + slept;
}

/** @type {Clock} */
const browserClock = {
  now: timeAwakeOrAsleep,
  setTimeout: (action, delay) => setTimeout(action, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** @param {StoreOptions} options */
export function createStore({
  baseUrl, getToken, fetch = (...given) => globalThis.fetch(...given), clock = browserClock,
  document = globalThis.document,
}) {
  const enabled = baseUrl !== '';
  const address = `${baseUrl.replace(/\/+$/, '')}/query`;
  /** @type {Map<string, Answer>} */
  const cache = new Map();
  /** @type {Set<() => void>} */
  const listeners = new Set();
  let state = IDLE;
  /** @type {Question | null} */
  let wanted = null;
  /** @type {{ key: string, controller: AbortController, promise: Promise<void> } | null} */
  let pending = null;
  /**
   * The last failure. Its key is that of the question which was at fault, or null where any
   * would have failed; until then the store waits, and until ordered nobody can make it ask.
   * @type {{ key: string | null, refusal: Refusal, until: number, ordered: number } | null}
   */
  let failure = null;
  let failures = 0;
  let requests = 0;
  /** @type {{ server: number, clock: number } | null} */
  let reference = null;
  /** @type {unknown} */
  let timer = null;

  /** @param {Question} question */
  const keyOf = ({ days, source }) => `${days} ${source ?? ''}`;

  /** @param {string} key */
  const failureOf = (key) => (failure && (failure.key ?? key) === key ? failure : null);

  /**
   * @param {HistoricStatus} status
   * @param {Refusal | null} refusal
   */
  function show(status, refusal = null) {
    const known = wanted && cache.get(keyOf(wanted));
    state = !wanted ? IDLE : Object.freeze({
      historicData: known ? known.aggregates : IDLE.historicData,
      historicDataStatus: status,
      historicDataFetchedAt: known ? known.fetchedAt : null,
      historicDataError: refusal && refusal.message,
      historicDataErrorStatus: refusal && refusal.status,
      historicDays: wanted.days,
      historicSource: wanted.source,
      historicRequest: known ? known.request : null,
    });
    for (const listener of [...listeners]) {
      listener();
    }
  }

  /** In how many ms the data goes stale, or the pause after a failure is over; null for never. */
  function dueIn() {
    if (!wanted || pending) {
      return null;
    }
    const key = keyOf(wanted);
    const failed = failureOf(key);
    const staleAt = cache.get(key)?.staleAt ?? 0;
    const now = clock.now();
    // What the question was at fault for gets no better by itself.
    const awaited = now < staleAt || (failed && !failed.key);
    return awaited ? Math.max(0, staleAt - now, failed ? failed.until - now : 0) : null;
  }

  function plan() {
    clock.clearTimeout(timer);
    const due = dueIn();
    timer = due === null ? null : clock.setTimeout(wake, Math.min(LONGEST_NAP, due));
  }

  /** @param {boolean} urgent  as ask has it */
  function wake(urgent = false) {
    if (!wanted || document.visibilityState === 'hidden' || failureOf(keyOf(wanted))?.key) {
      return;
    }
    if (dueIn() && !urgent) {
      plan();
    } else {
      ask(urgent);
    }
  }

  /**
   * Shows what is known of the question, and sends it where that is not enough.
   * @param {boolean} urgent  someone asks for it: wait no longer than the server ordered
   */
  function ask(urgent = false) {
    const question = /** @type {Question} */ (wanted);
    const key = keyOf(question);
    if (pending?.key === key) {
      return pending.promise;
    }
    pending?.controller.abort();
    pending = null;
    const known = cache.get(key);
    const failed = failureOf(key);
    if (known && clock.now() < known.staleAt) {
      show('success');
    } else if (failed && clock.now() < (urgent ? failed.ordered : failed.until)) {
      show('error', failed.refusal);
    } else {
      return send(key, question);
    }
    plan();
    return Promise.resolve();
  }

  /**
   * @param {string} key
   * @param {Question} question
   */
  function send(key, question) {
    const request = ++requests;
    const controller = new AbortController();
    const sentence = 'The server did not answer within 5 seconds.';
    const deadline = clock.setTimeout(() => controller.abort(new Refusal(sentence)), GIVE_UP_AFTER);
    const mine = { key, controller, promise: Promise.resolve() };
    pending = mine;
    mine.promise = load(question, controller.signal).then(
      // Whoever was overtaken keeps quiet: its answer is older than the question.
      (answer) => pending === mine && succeed(key, request, answer),
      (reason) => pending === mine && fail(key, reason),
    ).then(() => clock.clearTimeout(deadline));
    plan();
    show('loading');
    return mine.promise;
  }

  /**
   * @param {string} key
   * @param {number} request
   * @param {{ aggregates: readonly HourlyAggregate[], fetchedAt: number }} answer
   */
  function succeed(key, request, { aggregates, fetchedAt }) {
    pending = null;
    failure = null;
    failures = 0;
    const now = clock.now();
    reference = { server: fetchedAt, clock: now };
    // The count of an hour is known when the hour is over, so it is fetched anew then.
    const rest = HOUR - (fetchedAt % HOUR) + Math.random() * HOUR_SPREAD;
    for (const [other, { staleAt }] of cache) {
      if (staleAt <= now) {
        cache.delete(other);
      }
    }
    const fresh = Math.max(LEAST_FRESH, Math.min(STALE_AFTER, rest));
    cache.set(key, { aggregates, fetchedAt, request, staleAt: now + fresh });
    plan();
    show('success');
  }

  /**
   * @param {string} key
   * @param {unknown} reason
   */
  function fail(key, reason) {
    pending = null;
    const refusal = reason instanceof Refusal ? reason : new Refusal('The server can’t be reached.');
    const { status, pause, date } = refusal;
    const now = clock.now();
    if (!reference && date === date) {
      reference = { server: date, clock: now };
    }
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failures++);
    const own = longest * (1 + Math.random()) / 2;
    failure = {
      key: status && status >= 400 && status < 500 && status !== 429 && status !== 408 ? key : null,
      refusal,
      until: now + Math.max(own, pause),
      ordered: now + pause,
    };
    plan();
    show('error', refusal);
  }

  /**
   * @param {Question} question
   * @param {AbortSignal} signal
   */
  async function load({ days, source }, signal) {
    const query = new URLSearchParams({ days: `${days}`, ...(source !== null && { source }) });
    const token = getToken();
    if (token && !/^[\x21-\x7e]+$/.test(token.trim())) {
      throw new Refusal('The token has characters that can’t be sent.', 401);
    }
    let response, text;
    try {
      response = await fetch(`${address}?${query}`, {
        headers: token ? { Authorization: `Bearer ${token}` } : {},
        cache: 'no-store', credentials: 'omit', referrerPolicy: 'no-referrer', signal,
      });
      text = await response.text();
    } catch (reason) {
      throw signal.aborted ? signal.reason : reason;
    }
    if (!response.ok) {
      throw refusalOf(response, text);
    }
    return readAnswer(text, days);
  }

  const onVisibility = () => document.visibilityState === 'visible' && wake();
  // Whoever is connected again need not wait for the end of a pause.
  const onOnline = () => wake(true);
  if (enabled) {
    document.addEventListener('visibilitychange', onVisibility);
    document.defaultView?.addEventListener('online', onOnline);
  }

  return {
    /** Whether there is a base URL. Where there is none, nothing is ever fetched. */
    enabled,
    get historicData() { return state.historicData; },
    get historicDataStatus() { return state.historicDataStatus; },
    get historicDataFetchedAt() { return state.historicDataFetchedAt; },
    get historicDataError() { return state.historicDataError; },
    /** An unchanging copy, another one after each change. */
    getState: () => state,

    /**
     * Shows these days from now on: what is cached, or what the server answers. Never throws
     * for what the server does; that is in historicDataError.
     * @param {7 | 30} days
     * @param {string | null} source  one source, or null for all
     * @returns {Promise<void>}
     */
    fetchHistoricData(days, source = null) {
      if (days !== 7 && days !== 30) {
        throw new RangeError('days is 7 or 30');
      }
      wanted = enabled ? { days, source } : null;
      return wanted ? ask() : Promise.resolve();
    },

    /**
     * Asks again after an error without waiting for the pause to end, unless it was the server
     * that asked for it by Retry-After.
     * @returns {Promise<void>}
     */
    retryHistoricData: () => (wanted ? ask(true) : Promise.resolve()),

    /** Forgets everything, also what is on its way. */
    clearHistoricData() {
      pending?.controller.abort();
      pending = wanted = failure = reference = null;
      failures = 0;
      cache.clear();
      plan();
      show('idle');
    },

    /**
     * @param {() => void} listener  called after each change
     * @returns {() => void} ends it
     */
    subscribe(listener) {
      listeners.add(listener);
      return () => { listeners.delete(listener); };
    },

    /** The server's time now, in ms since 1970; null until an answer told it. */
    now: () => reference && reference.server + (clock.now() - reference.clock),

    /** How many requests were sent: what a live event that arrives now has to be counted with. */
    get requests() { return requests; },

    /** The earliest request whose answer may still be shown. */
    get oldestRequest() {
      return Math.min(requests, ...Array.from(cache.values(), ({ request }) => request));
    },

    /** In how many ms the store will ask again after an error; null where it won't. */
    retryIn() {
      const failed = wanted && !pending && failureOf(keyOf(wanted));
      return failed && !failed.key ? Math.max(0, failed.until - clock.now()) : null;
    },

    /** Ends the store: no more timers, no more requests. */
    close() {
      document.removeEventListener('visibilitychange', onVisibility);
      document.defaultView?.removeEventListener('online', onOnline);
      listeners.clear();
      this.clearHistoricData();
    },
  };
}

/** @typedef {ReturnType<typeof createStore>} Store */

/**
 * @param {Response} response
 * @param {string} text
 */
function refusalOf(response, text) {
  const date = Date.parse(response.headers.get('Date') ?? '');
  const asked = response.headers.get('Retry-After') ?? '';
  // Seconds, or the date to wait for (RFC 9110, 10.2.3).
  const pause = /^\d+$/.test(asked) ? Number(asked) * 1000 : Date.parse(asked) - (date || Date.now());
  let sentence = `The server answered with status ${response.status}.`;
  try {
    const { message } = JSON.parse(text);
    if (typeof message === 'string' && message.trim() !== '') {
      sentence = message.slice(0, 500);
    }
  } catch {
    // A page of some proxy in between; its status says enough.
  }
  return new Refusal(sentence, response.status, Math.max(0, Math.min(pause || 0, LONGEST_RETRY_AFTER)), date);
}

/**
 * Checks all of an answer, whose rows may stand in any order and have more fields than these.
 * @param {string} text
 * @param {7 | 30} days
 */
function readAnswer(text, days) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Refusal('The server’s answer is not JSON.');
  }
  const rows = answer?.aggregates;
  const stamp = answer?.meta?.fetchedAt;
  // Without an offset it would be read as the viewer's time. The days around the last of the
  // year 9999 can't be written as dates.
  const fetchedAt = typeof stamp === 'string' && /^(?!9999)\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(stamp)
    ? Date.parse(stamp) : NaN;
  if (!Array.isArray(rows)) {
    throw new Refusal('The server’s answer has no list of counts.');
  }
  if (fetchedAt !== fetchedAt) {
    throw new Refusal('The server’s answer does not say what time it is.');
  }
  if ('daysRequested' in answer.meta && answer.meta.daysRequested !== days) {
    throw new Refusal(`The server’s answer is not for ${days} days.`);
  }
  const aggregates = rows.map((row, index) => {
    const field = wrongField(row);
    if (field) {
      throw new Refusal(`The server’s answer can’t be used: row ${index} has no valid ${field}.`);
    }
    const { source, date, hour, eventCount } = row;
    return Object.freeze({ source, date, hour, eventCount });
  });
  return { aggregates: Object.freeze(aggregates), fetchedAt };
}

/**
 * @param {any} row
 * @returns {string | null} the first field that is not what it should be
 */
function wrongField(row) {
  if (typeof row?.source !== 'string' || row.source === '') {
    return 'source';
  }
  const date = row.date;
  if (typeof date !== 'string' || !/^\d{4}-\d\d-\d\d$/.test(date) ||
      new Date(`${date}T00:00:00Z`).toJSON()?.slice(0, 10) !== date) {
    return 'date';
  }
  if (!Number.isInteger(row.hour) || row.hour < 0 || row.hour > 23) {
    return 'hour';
  }
  return Number.isSafeInteger(row.eventCount) && row.eventCount >= 0 ? null : 'eventCount';
}
