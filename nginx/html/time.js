/** UTC hours and local time. A UTC hour is a number: the hours from 1970 to its start. */

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

/**
 * @typedef {object} LocalTime
 * @property {string} date    YYYY-MM-DD
 * @property {number} hour    0 to 23
 * @property {number} minute
 * @property {number} offset  minutes ahead of UTC
 */

/** @param {number} instant  ms since 1970 */
export function hourOf(instant) {
  return Math.floor(instant / HOUR_MS);
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

/** @type {Map<string, (instant: number) => LocalTime>} */
const converters = new Map();

/**
 * A function that converts an instant to the local time of a time zone.
 * @param {string} timeZone
 * @returns {(instant: number) => LocalTime}
 */
export function localTimeIn(timeZone) {
  const known = converters.get(timeZone);
  if (known) {
    return known;
  }
  const format = new Intl.DateTimeFormat('en-u-ca-iso8601-nu-latn', {
    timeZone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit',
  });
  /** @param {number} instant */
  const convert = (instant) => {
    /** @type {Record<string, string>} */
    const part = {};
    for (const { type, value } of format.formatToParts(instant)) {
      part[type] = value;
    }
    const local = Date.UTC(+part.year, +part.month - 1, +part.day, +part.hour, +part.minute);
    return {
      date: new Date(local).toJSON().slice(0, 10),
      hour: +part.hour,
      minute: +part.minute,
      offset: (local - Math.floor(instant / 60_000) * 60_000) / 60_000,
    };
  };
  converters.set(timeZone, convert);
  return convert;
}

/** @type {Map<string, (hour: number) => LocalTime>} */
const hourConverters = new Map();

/**
 * A function that converts the start of a UTC hour to local time. Intl is slower than drawing a
 * cell, so it is called only for the start and end of each UTC day, and for each hour if the
 * offset changes in between.
 * @param {string} timeZone
 * @returns {(hour: number) => LocalTime}
 */
export function localHourIn(timeZone) {
  const known = hourConverters.get(timeZone);
  if (known) {
    return known;
  }
  const localTime = localTimeIn(timeZone);
  /** @type {Map<number, LocalTime>} */
  const converted = new Map();
  /** @type {Map<number, number>} */
  const offsets = new Map();

  /** @param {number} hour */
  const offsetAt = (hour) => {
    const offset = offsets.get(hour) ?? localTime(hour * HOUR_MS).offset;
    offsets.set(hour, offset);
    return offset;
  };

  /** @param {number} hour */
  const convert = (hour) => {
    let result = converted.get(hour);
    if (!result) {
      const midnight = Math.floor(hour / 24) * 24;
      const before = offsetAt(midnight);
      const offset = before === offsetAt(midnight + 24) ? before : offsetAt(hour);
      const local = new Date(hour * HOUR_MS + offset * 60_000);
      result = {
        date: local.toJSON().slice(0, 10), hour: local.getUTCHours(), minute: local.getUTCMinutes(), offset,
      };
      converted.set(hour, result);
    }
    return result;
  };
  hourConverters.set(timeZone, convert);
  return convert;
}

/**
 * @typedef {object} CalendarDay
 * @property {string} date
 * @property {number[][]} hours  the UTC hours that start in each of the 24 local hours: one, none if
 *                               the clocks skip the local hour, two if they repeat it
 */

/**
 * The local days from a UTC hour to an instant, each of them whole.
 * @param {number} first  a UTC hour
 * @param {number} last   an instant, in ms since 1970
 * @param {string} timeZone
 * @returns {CalendarDay[]}
 */
export function calendar(first, last, timeZone) {
  const localHour = localHourIn(timeZone);
  const firstDate = localHour(first).date;
  const lastDate = localTimeIn(timeZone)(last).date;
  let hour = first;
  while (localHour(hour - 1).date === firstDate) {
    hour--;
  }
  /** @type {CalendarDay[]} */
  const days = [];
  for (; localHour(hour).date <= lastDate; hour++) {
    const { date, hour: column } = localHour(hour);
    if (days.at(-1)?.date !== date) {
      days.push({ date, hours: Array.from({ length: 24 }, () => []) });
    }
    days[days.length - 1].hours[column].push(hour);
  }
  return days;
}

/**
 * An offset as UTC+05:30.
 * @param {number} offset  minutes
 */
export function offsetText(offset) {
  const minutes = Math.abs(offset);
  return `UTC${offset < 0 ? '−' : '+'}${twoDigits(Math.floor(minutes / 60))}:${twoDigits(minutes % 60)}`;
}

/**
 * The hour that starts at this time, as 14:30–15:30.
 * @param {LocalTime} start
 */
export function rangeText({ hour, minute }) {
  return `${twoDigits(hour)}:${twoDigits(minute)}–${twoDigits((hour + 1) % 24)}:${twoDigits(minute)}`;
}

const shortDate = new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', weekday: 'short', day: 'numeric', month: 'short' });
const longDate = new Intl.DateTimeFormat('en-GB', {
  timeZone: 'UTC', weekday: 'long', day: 'numeric', month: 'long', year: 'numeric',
});

/** @type {Map<string, { short: string, long: string }>} */
const datesInWords = new Map();

/**
 * A date in words.
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
export function twoDigits(number) {
  return String(number).padStart(2, '0');
}
