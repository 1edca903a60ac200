/**
 * Counts live events by source, UTC hour and the last request that was sent before they arrived:
 * the answer to a later request includes them, the answers to earlier requests do not.
 */

import { hourOf } from './time.js';

/**
 * An event's source, its instant in ms since 1970 and its UTC hour; null if the event is invalid.
 * @param {any} event
 * @returns {{ source: string, instant: number, hour: number } | null}
 */
export function readEvent(event) {
  const { source, timestamp } = event ?? {};
  if (typeof source !== 'string' || source === '' || typeof timestamp !== 'string') {
    return null;
  }
  // RFC 3339. Without an offset, Date.parse would take it for local time. Dates near the end of the
  // year 9999 would have a five-digit year in some time zones.
  const instant = /^(?!9999)\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(timestamp)
    ? Date.parse(timestamp.toUpperCase().replace(' ', 'T')) : NaN;
  return instant === instant ? { source, instant, hour: hourOf(instant) } : null;
}

export function createLive() {
  /**
   * The counts by hour, of all sources and of each, by request.
   * @type {Map<number, { all: Map<number, number>, bySource: Map<string, Map<number, number>> }>}
   */
  const counts = new Map();

  return {
    /**
     * @param {unknown} event
     * @param {number} request  how many requests had been sent when the event arrived
     * @returns {boolean} whether the event is valid
     */
    add(event, request) {
      const read = readEvent(event);
      if (!read) {
        return false;
      }
      const { all, bySource } = getOrCreate(counts, request, () => ({ all: new Map(), bySource: new Map() }));
      for (const hours of [all, getOrCreate(bySource, read.source, () => new Map())]) {
        hours.set(read.hour, (hours.get(read.hour) ?? 0) + 1);
      }
      return true;
    },

    /**
     * The count of each hour, of the events that arrived after this request was sent.
     * @param {number} request
     * @param {string | null} source  one source, or null for all
     * @returns {Map<number, number>}
     */
    since(request, source) {
      const sums = new Map();
      for (const [after, { all, bySource }] of counts) {
        const hours = source === null ? all : bySource.get(source);
        for (const [hour, count] of (after >= request && hours) || []) {
          sums.set(hour, (sums.get(hour) ?? 0) + count);
        }
      }
      return sums;
    },

    /**
     * The count of each source, of the events that arrived after this request was sent.
     * @param {number} request
     * @param {number} first  the UTC hour from which on events count
     * @returns {Map<string, number>}
     */
    sourcesSince(request, first) {
      const sums = new Map();
      for (const [after, { bySource }] of counts) {
        for (const [source, hours] of after >= request ? bySource : []) {
          for (const [hour, count] of hours) {
            if (hour >= first) {
              sums.set(source, (sums.get(source) ?? 0) + count);
            }
          }
        }
      }
      return sums;
    },

    /**
     * Drops the events that arrived before this request was sent.
     * @param {number} request
     */
    forgetBefore(request) {
      for (const after of counts.keys()) {
        if (after < request) {
          counts.delete(after);
        }
      }
    },

    clear() {
      counts.clear();
    },
  };
}

/**
 * @template K, V
 * @param {Map<K, V>} map
 * @param {K} key
 * @param {() => V} make
 * @returns {V}
 */
function getOrCreate(map, key, make) {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
