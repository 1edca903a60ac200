/**
 * Draws the events by source: a ranked list with bars. It shows a hundred sources, and a button
 * shows a hundred more. The order is that of the answer: a live event changes its source's count,
 * and moves no source away from the pointer or the focus.
 */

import { number } from './grid.js';
import { byRank } from './answer.js';

const STEP = 100;

/** @typedef {import('./answer.js').SourceTotal} SourceTotal */

/**
 * @typedef {object} Entry
 * @property {string} source
 * @property {number} historic
 * @property {number} eventCount  with the live events
 */

/**
 * @param {object} elements
 * @param {HTMLElement} elements.list
 * @param {HTMLButtonElement} elements.more
 * @param {(source: string) => void} onChoose
 */
export function createRanking({ list, more }, onChoose) {
  /** @type {readonly SourceTotal[] | null} the answer that was ranked */
  let ranked = null;
  /** The first hour of the live events that were ranked. */
  let begin = NaN;
  /** @type {Entry[]} */
  let entries = [];
  /** @type {Map<string, Entry>} */
  let bySource = new Map();
  let limit = STEP;
  /** @type {{ source: string, button: HTMLButtonElement, bar: HTMLElement, count: Text, drawn: number }[]} */
  let rows = [];

  /**
   * @param {readonly SourceTotal[]} answer
   * @param {Map<string, number>} live  the events that arrived later
   */
  function rank(answer, live) {
    entries = answer.map(({ source, eventCount }) => ({ source, historic: eventCount, eventCount }));
    bySource = new Map(entries.map((entry) => [entry.source, entry]));
    add(live);
    entries.sort(byRank);
    ranked = answer;
    const focused = rows.find(({ button }) => button === document.activeElement)?.source;
    list.replaceChildren();
    rows = [];
    extend();
    if (focused !== undefined) {
      (rows.find(({ source }) => source === focused) ?? rows[0])?.button.focus();
    }
  }

  /**
   * Sets the counts of sources with live events.
   * @param {Map<string, number>} live
   */
  function add(live) {
    for (const [source, count] of live) {
      const entry = bySource.get(source);
      if (entry) {
        entry.eventCount = entry.historic + count;
      } else {
        const added = { source, historic: 0, eventCount: count };
        bySource.set(source, added);
        entries.push(added);
      }
    }
  }

  /** Adds the rows up to the limit. */
  function extend() {
    const added = entries.slice(rows.length, limit).map(({ source }) => rowOf(source));
    rows.push(...added);
    list.append(...added.map(({ button }) => /** @type {HTMLElement} */ (button.parentElement)));
  }

  /** @param {string} source */
  function rowOf(source) {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    const name = document.createElement('bdi');
    name.textContent = source;
    const bar = document.createElement('span');
    bar.className = 'bar';
    const total = document.createElement('span');
    const count = document.createTextNode('');
    const unit = document.createElement('span');
    unit.className = 'visually-hidden';
    unit.textContent = ' events';
    total.append(count, unit);
    button.append(name, ' ', bar, total);
    button.addEventListener('click', () => onChoose(source));
    item.append(button);
    return { source, button, bar, count, drawn: -1 };
  }

  /** @param {string | null} chosen */
  function paint(chosen) {
    list.style.setProperty('--most', `${entries.reduce((most, { eventCount }) => Math.max(most, eventCount), 1)}`);
    for (const row of rows) {
      const { eventCount } = /** @type {Entry} */ (bySource.get(row.source));
      if (eventCount !== row.drawn) {
        row.drawn = eventCount;
        row.count.data = number(eventCount);
        row.bar.style.setProperty('--count', `${eventCount}`);
      }
      row.button.ariaCurrent = `${row.source === chosen}`;
    }
    const left = entries.length - rows.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(STEP, left)} more of ${number(left)}`;
  }

  more.addEventListener('click', () => {
    const first = rows.length;
    limit = first + STEP;
    extend();
    paint(rows.find(({ button }) => button.ariaCurrent === 'true')?.source ?? null);
    rows[first]?.button.focus();
  });

  return {
    /**
     * @param {readonly SourceTotal[]} answer  must not change later
     * @param {number} first                   the UTC hour from which on live events count
     * @param {Map<string, number>} live       the counts of the events that arrived later
     * @param {string | null} chosen           the source to mark
     * @returns {{ sources: number, events: number }}
     */
    draw(answer, first, live, chosen) {
      if (answer !== ranked || first !== begin) {
        begin = first;
        rank(answer, live);
      } else {
        add(live);
        extend();
      }
      paint(chosen);
      return { sources: entries.length, events: entries.reduce((sum, { eventCount }) => sum + eventCount, 0) };
    },

    /** Begins again with the first hundred when it is drawn next. */
    reset() {
      ranked = null;
      limit = STEP;
    },
  };
}
