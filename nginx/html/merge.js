/** Adds up historic counts and live events by UTC hour. */

import { HOUR_MS } from './time.js';

/** @typedef {import('./answer.js').HourTotal & { source?: string }} Row  of a source, or a total */

/**
 * The historic counts by hour.
 * @param {readonly Row[]} aggregates
 * @param {string | null} source  one source, or null for all rows
 * @returns {Map<number, number>}
 */
export function historicHours(aggregates, source) {
  const hours = new Map();
  for (const row of aggregates) {
    if (source === null || row.source === source) {
      const hour = Date.parse(`${row.date}T00:00:00Z`) / HOUR_MS + row.hour;
      hours.set(hour, (hours.get(hour) ?? 0) + row.eventCount);
    }
  }
  return hours;
}

/**
 * The count of an hour is the historic count plus the live events that arrived later.
 * @param {Map<number, number>} historic
 * @param {Map<number, number>} live  the events that arrived after the historic counts were requested
 * @returns {Map<number, number>}
 */
export function mergeHours(historic, live) {
  const merged = new Map(historic);
  for (const [hour, count] of live) {
    merged.set(hour, (merged.get(hour) ?? 0) + count);
  }
  return merged;
}
