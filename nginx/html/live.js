/**
 * Live events, counted by source and UTC hour, and by the request they came after: an answer
 * may hold what came before its question was put, and can't hold what came later.
 */

import { hourOf } from './time.js';

/**
 * An event's source and the UTC hour it belongs to, or null for what is no event.
 * @param {any} event
 * @returns {{ source: string, hour: number } | null}
 */
export function readEvent(event) {
  const { source, timestamp } = event ?? {};
  if (typeof source !== 'string' || source === '' || typeof timestamp !== 'string') {
    return null;
  }
  // RFC 3339: without an offset it would be read as the viewer's time. The days around the last
  // of the year 9999 can't be written as dates.
  const instant = /^(?!9999)\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(timestamp)
    ? Date.parse(timestamp.toUpperCase().replace(' ', 'T')) : NaN;
  return instant === instant ? { source, hour: hourOf(instant) } : null;
}

export function createLive() {
  /** @type {Map<number, Map<number, Map<string, number>>>} request, hour, source */
  const counts = new Map();
  /** @type {Set<string>} */
  const sources = new Set();

  return {
    /**
     * @param {unknown} event
     * @param {number} request  how many requests had been sent when it came
     * @returns {boolean} false for what is no event
     */
    add(event, request) {
      const read = readEvent(event);
      if (!read) {
        return false;
      }
      const hours = at(counts, request, () => new Map());
      const bySource = at(hours, read.hour, () => new Map());
      bySource.set(read.source, at(bySource, read.source, () => 0) + 1);
      sources.add(read.source);
      return true;
    },

    /**
     * Events by hour, of those that came once this request had been sent.
     * @param {number} request
     * @param {string | null} source  one source, or null for all
     * @returns {Map<number, number>}
     */
    since(request, source) {
      const sums = new Map();
      for (const [came, hours] of counts) {
        for (const [hour, bySource] of came >= request ? hours : []) {
          for (const [name, count] of bySource) {
            if (source === null || source === name) {
              sums.set(hour, (sums.get(hour) ?? 0) + count);
            }
          }
        }
      }
      return sums;
    },

    /**
     * Those that came before this request won't be asked for again.
     * @param {number} request
     */
    forgetBefore(request) {
      for (const came of counts.keys()) {
        if (came < request) {
          counts.delete(came);
        }
      }
    },

    clear() {
      counts.clear();
      sources.clear();
    },

    sources: () => [...sources],
  };
}

/**
 * @template K, V
 * @param {Map<K, V>} map
 * @param {K} key
 * @param {() => V} make
 * @returns {V}
 */
function at(map, key, make) {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
