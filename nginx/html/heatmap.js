/** What the grid shows: each local day's hours, their counts and what is to be said about them. */

import { historicHours, mergeHours } from './merge.js';
import { levelOf, quantiles } from './scale.js';
import { DAY, HOUR, calendar, hourOf, placer } from './time.js';

/**
 * - count: a number, which may be 0
 * - live: a number of live events, the historic count of the hour is not known
 * - unloaded: nothing is known
 * - future: it has not begun
 * - outside: it was over before the days asked for
 * @typedef {'count' | 'live' | 'unloaded' | 'future' | 'outside'} BucketState
 */

/**
 * One UTC hour.
 * @typedef {object} Bucket
 * @property {number} hour
 * @property {import('./time.js').Place} place
 * @property {BucketState} state
 * @property {number} count
 * @property {number} level     the colour: 0 for none
 * @property {boolean} partial  the window begins within it
 * @property {boolean} current  it is now
 */

/**
 * @typedef {object} Sum
 * @property {number} count
 * @property {boolean} whole  no part of it is unknown
 */

/** @typedef {{ date: string, cells: Bucket[][], sum: Sum }} HeatmapDay */

/**
 * @typedef {object} Heatmap
 * @property {string} timeZone
 * @property {HeatmapDay[]} days  the newest first
 * @property {Sum[]} hourSums     of the 24 columns
 * @property {Sum} sum
 * @property {import('./scale.js').Step[]} steps
 */

/**
 * @typedef {object} Given
 * @property {7 | 30} days
 * @property {string | null} source
 * @property {readonly import('./store.js').HourlyAggregate[]} aggregates
 * @property {number | null} fetchedAt     null where nothing is loaded
 * @property {Map<number, number>} live    events by hour that came after the request
 * @property {number} now                  by the server's clock
 * @property {string} timeZone
 */

/**
 * @param {Given} given
 * @returns {Heatmap}
 */
export function heatmap({ days, source, aggregates, fetchedAt, live, now, timeZone }) {
  const begin = (fetchedAt ?? now) - days * DAY;
  const first = hourOf(begin);
  const current = hourOf(now);
  // Of an hour that began after the fetch it knows nothing.
  const known = fetchedAt === null ? -Infinity : hourOf(fetchedAt);
  const counts = mergeHours(historicHours(aggregates, source), live);
  const place = placer(timeZone);

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
    } else if (fetchedAt === null || (hour > known && hour <= current)) {
      state = count === 0 ? 'unloaded' : 'live';
    }
    return {
      hour, place: place(hour), state, count, level: 0,
      partial: hour === first && begin % HOUR !== 0, current: hour === current,
    };
  };

  const table = calendar(first, now, timeZone).map(({ date, hours }) => {
    const cells = hours.map((column) => column.map(bucket));
    return { date, cells, sum: sumOf(cells.flat()) };
  }).reverse();

  const all = table.flatMap(({ cells }) => cells.flat());
  // What is only a part of an hour's events would be the wrong colour.
  const whole = all.filter(({ state }) => state === 'count');
  const steps = quantiles(whole.map(({ count }) => count));
  for (const each of whole) {
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
  let whole = true;
  for (const bucket of buckets) {
    count += bucket.count;
    whole &&= bucket.state !== 'unloaded' && bucket.state !== 'live';
  }
  return { count, whole };
}
