/** Sends one GET /query, waits for the answer, validates it and adds up its rows. */

/**
 * @typedef {object} HourlyAggregate
 * @property {string} source      the monitor's name
 * @property {string} date        YYYY-MM-DD, in UTC
 * @property {number} hour        0 to 23, in UTC
 * @property {number} eventCount
 */

/** @typedef {{ date: string, hour: number, eventCount: number }} HourTotal  newest hour first */
/** @typedef {{ source: string, eventCount: number }} SourceTotal             most events first */

/**
 * What an answer has a row for: each source and hour, each hour, or each source.
 * @typedef {'' | 'hour' | 'source'} GroupBy
 */

/** @typedef {{ '': HourlyAggregate, hour: HourTotal, source: SourceTotal }} Rows */

/** @typedef {{ days: 7 | 30, source: string | null }} Query */

// Restarted whenever a part of an answer arrives, so that a slow line is not taken for a dead one.
const SILENCE_TIMEOUT_MS = 5_000;
// An answer that ends later, or never, is given up.
const MAX_ANSWER_MS = 300_000;
const MAX_ANSWER_BYTES = 128 * 1024 * 1024;
const MAX_RETRY_AFTER_MS = 86_400_000;
const BROKEN = 'The connection broke before the server’s answer was complete.';

/** A query that failed. The message is a sentence for the user. */
export class QueryError extends Error {
  /**
   * @param {string} message
   * @param {number | null} status    the HTTP status
   * @param {number} retryAfter       ms
   * @param {number} date             the server's time, NaN if unknown
   */
  constructor(message, status = null, retryAfter = 0, date = NaN) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.date = date;
  }
}

/**
 * @template {GroupBy} G
 * @param {Query} query
 * @param {G} groupBy
 * @param {object} options
 * @param {string} options.url
 * @param {() => string} options.getToken
 * @param {typeof globalThis.fetch} options.fetch
 * @param {import('./store.js').Clock} options.clock
 * @param {AbortController} options.controller  cancels the request
 * @returns {Promise<{ aggregates: readonly Rows[G][], fetchedAt: number, begunAt: number }>}
 *   fetchedAt is the server's time, begunAt the clock's when the answer began
 * @throws {QueryError}  or what fetch throws
 */
export async function sendQuery({ days, source }, groupBy, { url, getToken, fetch, clock, controller }) {
  const parameters = new URLSearchParams({
    days: `${days}`, ...(source !== null && { source }), ...(groupBy && { group_by: groupBy }),
  });
  const token = getToken();
  if (token && !/^[\x21-\x7e]+$/.test(token.trim())) {
    throw new QueryError('The token contains invalid characters.', 401);
  }
  const { signal } = controller;
  /** @type {unknown} */
  let silence = null;
  /** @param {string} sentence  the error if nothing arrives from now on */
  const expectMore = (sentence) => {
    clock.clearTimeout(silence);
    silence = clock.setTimeout(() => controller.abort(new QueryError(sentence)), SILENCE_TIMEOUT_MS);
  };
  expectMore('The server did not answer within 5 seconds.');
  let response, text, begunAt = 0;
  try {
    response = await fetch(`${url}?${parameters}`, {
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      cache: 'no-store', credentials: 'omit', referrerPolicy: 'no-referrer', signal,
    });
    begunAt = clock.now();
    const onPart = () => expectMore('The server’s answer stopped for 5 seconds.');
    onPart();
    // The sentence of an error is short, and must be there in 5 seconds.
    text = await readText(response, response.ok ? onPart : () => {}, () => clock.now() - begunAt);
  } catch (reason) {
    const cause = signal.aborted ? signal.reason : reason;
    // Closes the connection.
    controller.abort();
    if (!response || response.ok) {
      throw cause;
    }
    text = '';
  } finally {
    clock.clearTimeout(silence);
  }
  if (!response.ok) {
    throw errorOf(response, text);
  }
  return { ...readAnswer(text, { days, source }, groupBy, Number(response.headers.get('Content-Length'))), begunAt };
}

/**
 * @param {Response} response
 * @param {() => void} onPart   called when a part of the answer has arrived
 * @param {() => number} age    of the answer, in ms
 */
async function readText(response, onPart, age) {
  if (!response.body) {
    return response.text();
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new QueryError(BROKEN);
    });
    if (done) {
      return text + decoder.decode();
    }
    onPart();
    text += decoder.decode(value, { stream: true });
    bytes += value.length;
    if (bytes > MAX_ANSWER_BYTES) {
      throw new QueryError('The server’s answer is larger than 128 MiB.');
    }
    if (age() > MAX_ANSWER_MS) {
      throw new QueryError('The server’s answer was not complete after 5 minutes.');
    }
  }
}

/**
 * @param {Response} response
 * @param {string} text
 */
function errorOf(response, text) {
  /** @param {string} name */
  const header = (name) => response.headers.get(name) ?? '';
  // Dates near the end of the year 9999 would have a five-digit year in some time zones.
  const date = Date.parse(/ (?!9999)\d{4} \d\d:\d\d:\d\d GMT$/.test(header('Date')) ? header('Date') : '');
  // Seconds or a date (RFC 9110, 10.2.3).
  const retryAfter = /^\d+$/.test(header('Retry-After')) ? Number(header('Retry-After')) * 1000
    : Date.parse(header('Retry-After')) - (date || Date.now());
  let sentence = `The server answered with status ${response.status}.`;
  try {
    const { message } = JSON.parse(text);
    if (typeof message === 'string' && message.trim() !== '') {
      sentence = message.slice(0, 500);
    }
  } catch {
    // Not JSON, perhaps a proxy's error page.
  }
  return new QueryError(sentence, response.status, Math.max(0, Math.min(retryAfter || 0, MAX_RETRY_AFTER_MS)), date);
}

/**
 * Validates an answer. Rows may be in any order and have additional fields.
 * @template {GroupBy} G
 * @param {string} text
 * @param {Query} query
 * @param {G} groupBy
 * @param {number} length  the answer's Content-Length, 0 if it has none
 */
function readAnswer(text, { days, source }, groupBy, length) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // Firefox ends an answer that is shorter than its Content-Length like a complete one.
    throw new QueryError(new TextEncoder().encode(text).length < length ? BROKEN : 'The server’s answer is not JSON.');
  }
  const rows = answer?.aggregates;
  const stamp = answer?.meta?.fetchedAt;
  // Without an offset, Date.parse would take it for local time. Dates near the end of the year
  // 9999 would have a five-digit year in some time zones.
  const fetchedAt = typeof stamp === 'string' && /^(?!9999)\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(stamp)
    ? Date.parse(stamp) : NaN;
  if (!Array.isArray(rows)) {
    throw new QueryError('The server’s answer is invalid: aggregates is not a list.');
  }
  if (fetchedAt !== fetchedAt) {
    throw new QueryError('The server’s answer is invalid: fetchedAt is not a timestamp.');
  }
  if ('daysRequested' in answer.meta && answer.meta.daysRequested !== days) {
    throw new QueryError(`The server’s answer is not for ${days} days.`);
  }
  rows.forEach((row, index) => {
    const field = invalidField(row, groupBy);
    if (field) {
      throw new QueryError(`The server’s answer is invalid: row ${index} has no valid ${field}.`);
    }
  });
  const aggregates = { '': copies, hour: hourTotals, source: sourceTotals }[groupBy](rows, source);
  return { aggregates: /** @type {readonly Rows[G][]} */ (Object.freeze(aggregates)), fetchedAt };
}

/**
 * @param {any} row
 * @param {GroupBy} groupBy
 * @returns {string | null} the first invalid field
 */
function invalidField(row, groupBy) {
  const isTotal = groupBy === 'hour' && row?.source === undefined;
  if (!isTotal && (typeof row?.source !== 'string' || row.source === '')) {
    return 'source';
  }
  if (groupBy !== 'source') {
    const date = row?.date;
    if (typeof date !== 'string' || !/^\d{4}-\d\d-\d\d$/.test(date) ||
        new Date(`${date}T00:00:00Z`).toJSON()?.slice(0, 10) !== date) {
      return 'date';
    }
    if (!Number.isInteger(row.hour) || row.hour < 0 || row.hour > 23) {
      return 'hour';
    }
  }
  return Number.isSafeInteger(row.eventCount) && row.eventCount >= 0 ? null : 'eventCount';
}

/** @param {HourlyAggregate[]} rows */
function copies(rows) {
  return rows.map(({ source, date, hour, eventCount }) => Object.freeze({ source, date, hour, eventCount }));
}

/**
 * One row for each hour. A server that does not know group_by answers with rows of each source.
 * @param {(HourTotal & { source?: string })[]} rows
 * @param {string | null} chosen
 */
function hourTotals(rows, chosen) {
  /** @type {Map<string, HourTotal>} */
  const totals = new Map();
  for (const { source, date, hour, eventCount } of rows) {
    if (source === undefined || chosen === null || source === chosen) {
      const key = `${date} ${hour}`;
      totals.set(key, { date, hour, eventCount: eventCount + (totals.get(key)?.eventCount ?? 0) });
    }
  }
  return Array.from(totals.values(), (total) => Object.freeze(total));
}

/**
 * One row for each source, most events first, also from rows of each source and hour.
 * @param {SourceTotal[]} rows
 */
function sourceTotals(rows) {
  /** @type {Map<string, number>} */
  const totals = new Map();
  for (const { source, eventCount } of rows) {
    totals.set(source, eventCount + (totals.get(source) ?? 0));
  }
  return Array.from(totals, ([source, eventCount]) => Object.freeze({ source, eventCount })).sort(byRank);
}

/**
 * Most events first, then by name.
 * @param {SourceTotal} a
 * @param {SourceTotal} b
 */
export function byRank(a, b) {
  return b.eventCount - a.eventCount || (a.source < b.source ? -1 : 1);
}
