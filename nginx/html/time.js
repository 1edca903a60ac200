/**
 * UTC hours and where they stand in a time zone. An hour is a number: how many of them had
 * passed since 1970 when it began.
 */

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;

/**
 * Where an hour begins on the clocks of a time zone.
 * @typedef {object} Place
 * @property {string} date    YYYY-MM-DD
 * @property {number} hour    0 to 23
 * @property {number} minute  not 0 where the offset is no whole hour
 * @property {number} offset  the zone's minutes before UTC
 */

/** @param {number} instant  ms since 1970 */
export function hourOf(instant) {
  return Math.floor(instant / HOUR);
}

/** The viewer's time zone. */
export function localTimeZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return zone || 'UTC';
  } catch {
    return 'UTC';
  }
}

/** @type {Map<string, (instant: number) => Place>} */
const clocks = new Map();

/**
 * What a zone's clocks show.
 * @param {string} timeZone
 * @returns {(instant: number) => Place}
 */
export function clockOf(timeZone) {
  const known = clocks.get(timeZone);
  if (known) {
    return known;
  }
  const format = new Intl.DateTimeFormat('en-u-ca-iso8601-nu-latn', {
    timeZone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit',
  });
  /** @param {number} instant */
  const clock = (instant) => {
    /** @type {Record<string, string>} */
    const part = {};
    for (const { type, value } of format.formatToParts(instant)) {
      part[type] = value;
    }
    const shown = Date.UTC(+part.year, +part.month - 1, +part.day, +part.hour, +part.minute);
    return {
      date: new Date(shown).toJSON().slice(0, 10),
      hour: +part.hour,
      minute: +part.minute,
      offset: (shown - Math.floor(instant / 60_000) * 60_000) / 60_000,
    };
  };
  clocks.set(timeZone, clock);
  return clock;
}

/** @type {Map<string, (hour: number) => Place>} */
const placers = new Map();

/**
 * Where each hour begins in a time zone. Intl takes longer than drawing a cell, so it is asked
 * for two hours of each day of UTC, and for all only where the clocks change between them.
 * @param {string} timeZone
 * @returns {(hour: number) => Place}
 */
export function placer(timeZone) {
  const made = placers.get(timeZone);
  if (made) {
    return made;
  }
  const clock = clockOf(timeZone);
  /** @type {Map<number, Place>} */
  const places = new Map();
  /** @type {Map<number, number>} */
  const offsets = new Map();

  /** @param {number} hour */
  const offsetAt = (hour) => {
    const offset = offsets.get(hour) ?? clock(hour * HOUR).offset;
    offsets.set(hour, offset);
    return offset;
  };

  /** @param {number} hour */
  const place = (hour) => {
    let found = places.get(hour);
    if (!found) {
      const midnight = Math.floor(hour / 24) * 24;
      const before = offsetAt(midnight);
      const offset = before === offsetAt(midnight + 24) ? before : offsetAt(hour);
      const shown = new Date(hour * HOUR + offset * 60_000);
      found = {
        date: shown.toJSON().slice(0, 10), hour: shown.getUTCHours(), minute: shown.getUTCMinutes(), offset,
      };
      places.set(hour, found);
    }
    return found;
  };
  placers.set(timeZone, place);
  return place;
}

/**
 * @typedef {object} CalendarDay
 * @property {string} date
 * @property {number[][]} hours  for each of the 24 local hours those that begin in it: one, or none
 *                               where the clocks skip it, or two where they repeat it
 */

/**
 * Every local day from the one in which an hour begins to the one of an instant, whole days.
 * @param {number} first  an hour
 * @param {number} last   an instant
 * @param {string} timeZone
 * @returns {CalendarDay[]}
 */
export function calendar(first, last, timeZone) {
  const place = placer(timeZone);
  const firstDate = place(first).date;
  const lastDate = clockOf(timeZone)(last).date;
  let hour = first;
  while (place(hour - 1).date === firstDate) {
    hour--;
  }
  /** @type {CalendarDay[]} */
  const days = [];
  for (; place(hour).date <= lastDate; hour++) {
    const { date, hour: column } = place(hour);
    if (days.at(-1)?.date !== date) {
      days.push({ date, hours: Array.from({ length: 24 }, () => []) });
    }
    days[days.length - 1].hours[column].push(hour);
  }
  return days;
}

/**
 * +05:30 as on clocks and in RFC 3339.
 * @param {number} offset  minutes
 */
export function offsetText(offset) {
  const minutes = Math.abs(offset);
  return `UTC${offset < 0 ? '−' : '+'}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}

/**
 * The hour that begins there, as 14:30–15:30.
 * @param {Place} place
 */
export function rangeText({ hour, minute }) {
  return `${two(hour)}:${two(minute)}–${two((hour + 1) % 24)}:${two(minute)}`;
}

const shortDate = new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', weekday: 'short', day: 'numeric', month: 'short' });
const longDate = new Intl.DateTimeFormat('en-GB', {
  timeZone: 'UTC', weekday: 'long', day: 'numeric', month: 'long', year: 'numeric',
});

/** @type {Map<string, { short: string, long: string }>} */
const datesInWords = new Map();

/**
 * A local date in words: its own, not that of an instant.
 * @param {string} date
 */
export function dateTexts(date) {
  let texts = datesInWords.get(date);
  if (!texts) {
    const noon = Date.parse(`${date}T12:00:00Z`);
    texts = { short: shortDate.format(noon).replace(',', ''), long: longDate.format(noon) };
    datesInWords.set(date, texts);
  }
  return texts;
}

/** @param {number} number */
export function two(number) {
  return String(number).padStart(2, '0');
}
