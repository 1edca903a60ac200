/** Computes what the grid shows: the hours of each local day with their counts, states and colour levels. */

import { historicHours, mergeHours } from './merge.js';
import { levelOf, quantiles } from './scale.js';
import { DAY_MS, HOUR_MS, calendar, hourOf, localHourIn } from './time.js';

/**
 * - count: the count is known; it may be 0
 * - live: only live events are known, the historic count is not loaded
 * - unloaded: nothing is known
 * - future: the hour has not started
 * - outside: the hour is before the selected period
 * @typedef {'count' | 'live' | 'unloaded' | 'future' | 'outside'} BucketState
 */

/**
 * One UTC hour.
 * @typedef {object} Bucket
 * @property {number} hour
 * @property {import('./time.js').LocalTime} local
 * @property {BucketState} state
 * @property {number} count
 * @property {number} level     of the colour scale; 0 for none
 * @property {boolean} partial  the selected period starts within this hour
 * @property {boolean} current  the current hour
 */

/**
 * @typedef {object} Sum
 * @property {number} count
 * @property {boolean} complete  whether all of its hours are loaded
 */

/** @typedef {{ date: string, cells: Bucket[][], sum: Sum }} HeatmapDay */

/**
 * @typedef {object} Heatmap
 * @property {string} timeZone
 * @property {HeatmapDay[]} days  newest first
 * @property {Sum[]} hourSums     of the 24 columns
 * @property {Sum} sum
 * @property {import('./scale.js').Step[]} steps
 */

/**
 * @typedef {object} HeatmapInput
 * @property {7 | 30} days
 * @property {readonly import('./answer.js').HourTotal[]} aggregates
 * @property {number | null} fetchedAt     null if nothing is loaded
 * @property {Map<number, number>} live    the count of each hour, of the events that arrived after the request
 * @property {number} now                  the server's time
 * @property {string} timeZone
 */

/**
 * The historic counts drawn last. A live event does not change them.
 * @type {{ aggregates: HeatmapInput['aggregates'], hours: Map<number, number> } | null}
 */
let drawn = null;

/**
 * @param {HeatmapInput} input  the aggregates of a call must not change later
 * @returns {Heatmap}
 */
export function heatmap({ days, aggregates, fetchedAt, live, now: serverTime, timeZone }) {
  // The server's clock may have been set back since.
  const now = Math.max(serverTime, fetchedAt ?? serverTime);
  const begin = (fetchedAt ?? now) - days * DAY_MS;
  const first = hourOf(begin);
  const current = hourOf(now);
  // The counts are loaded up to this hour.
  const lastLoaded = fetchedAt === null ? -Infinity : hourOf(fetchedAt);
  if (drawn?.aggregates !== aggregates) {
    drawn = { aggregates, hours: historicHours(aggregates, null) };
  }
  const counts = mergeHours(drawn.hours, live);
  const localHour = localHourIn(timeZone);

  /**
   * @param {number} hour
   * @returns {Bucket}
   */
  const bucket = (hour) => {
    const count = hour < first ? 0 : counts.get(hour) ?? 0;
    /** @type {BucketState} */
    let state = 'count';
    if (hour < first) {
      state = 'outside';
    } else if (count === 0 && hour > current) {
      state = 'future';
    } else if (fetchedAt === null || (hour > lastLoaded && hour <= current)) {
      state = count === 0 ? 'unloaded' : 'live';
    }
    return {
      hour, local: localHour(hour), state, count, level: 0,
      partial: hour === first && begin % HOUR_MS !== 0, current: hour === current,
    };
  };

  const table = calendar(first, now, timeZone).map(({ date, hours }) => {
    const cells = hours.map((column) => column.map(bucket));
    return { date, cells, sum: sumOf(cells.flat()) };
  }).reverse();

  const all = table.flatMap(({ cells }) => cells.flat());
  // The colour scale takes no incomplete counts.
  const loaded = all.filter(({ state }) => state === 'count');
  const steps = quantiles(loaded.map(({ count }) => count));
  for (const each of loaded) {
    each.level = levelOf(steps, each.count);
  }
  const hourSums = Array.from({ length: 24 }, (_, column) => sumOf(table.flatMap(({ cells }) => cells[column])));
  return { timeZone, days: table, hourSums, sum: sumOf(all), steps };
}

/**
 * @param {Bucket[]} buckets
 * @returns {Sum}
 */
function sumOf(buckets) {
  let count = 0;
  let complete = true;
  for (const bucket of buckets) {
    count += bucket.count;
    complete &&= bucket.state !== 'unloaded' && bucket.state !== 'live';
  }
  return { count, complete };
}
