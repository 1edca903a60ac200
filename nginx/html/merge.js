/** Historic counts and live events, together by UTC hour. */

import { HOUR } from './time.js';

/** @typedef {import('./store.js').HourlyAggregate} HourlyAggregate */

/**
 * @param {readonly HourlyAggregate[]} aggregates
 * @param {string | null} source  one source, or null for all
 * @returns {Map<number, number>}
 */
export function historicHours(aggregates, source) {
  const hours = new Map();
  for (const row of aggregates) {
    if (source === null || row.source === source) {
      const hour = Date.parse(`${row.date}T00:00:00Z`) / HOUR + row.hour;
      hours.set(hour, (hours.get(hour) ?? 0) + row.eventCount);
    }
  }
  return hours;
}

/**
 * The count of an hour is the last fetch's plus the live events that came after it.
 * @param {Map<number, number>} historic
 * @param {Map<number, number>} live  of the events that came after the request for the historic ones
 * @returns {Map<number, number>}
 */
export function mergeHours(historic, live) {
  const merged = new Map(historic);
  for (const [hour, count] of live) {
    merged.set(hour, (merged.get(hour) ?? 0) + count);
  }
  return merged;
}
