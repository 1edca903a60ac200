/** Draws the two views, the heatmap and the events by source, with the notices and the texts around them. */

import { createGrid, events, number } from './grid.js';
import { heatmap } from './heatmap.js';
import { createRanking } from './ranking.js';
import { DAY_MS, dateTexts, hourOf, localTimeIn, offsetText, twoDigits } from './time.js';
import { attachTooltip } from './tooltip.js';

/**
 * @template {import('./answer.js').GroupBy} G
 * @typedef {import('./store.js').HistoricState<G>} HistoricState
 */
/** @typedef {ReturnType<typeof import('./live.js').createLive>} Live */

/**
 * What the viewer chose.
 * @typedef {object} Choices
 * @property {'hour' | 'source'} view
 * @property {7 | 30} days
 * @property {string | null} source  null for all sources
 * @property {string} timeZone
 */

const LOADING = 'Fetching historic data…';
const FAILED = 'Unable to load historic data. Showing real-time events only.';

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 */
export const element = (id) => /** @type {T} */ (document.getElementById(id));

/** @param {(source: string) => void} onChoose  called with the source of a row of the ranking */
export function createViews(onChoose) {
  const grid = createGrid(element('grid'));
  const refreshTooltip = attachTooltip(element('tooltip'), element('grid'));
  const ranking = createRanking({ list: element('sources'), more: element('more') }, onChoose);
  let legend = '';
  let isFirstDrawDone = false;

  /**
   * The notices for loading and errors; the views draw the one for no events.
   * @param {HistoricState<any>} state
   * @param {Choices} choices
   */
  function drawNotices(state, { timeZone }) {
    const { historicDataStatus: status, historicDataFetchedAt: fetchedAt, historicDataError } = state;
    const loading = status === 'loading' && fetchedAt === null;
    const failed = status === 'error';
    element('loading').hidden = !loading;
    element('error').hidden = !failed;
    if (failed) {
      // The counts of an earlier request stay on the page.
      element('error-title').textContent = fetchedAt === null ? FAILED
        : `Unable to load historic data. Showing counts from ${timeText(fetchedAt, timeZone)} and real-time events.`;
      element('error-reason').textContent = historicDataError;
    }
    if (loading || failed) {
      element('empty').hidden = true;
      announce(loading ? LOADING : `${element('error-title').textContent} ${historicDataError}`);
    }
  }

  /**
   * @param {HistoricState<'hour'>} state
   * @param {Choices} choices
   * @param {Live} live
   * @param {number | null} now  the server's time
   */
  function drawHeatmap(state, { days, source, timeZone }, live, now) {
    const { historicData, historicDataStatus, historicDataFetchedAt, historicRequest } = state;
    ranking.reset();
    element('ranking').hidden = true;
    element('shown').hidden = now === null;
    element('heatmap-title').textContent = 'Events by hour';
    element('total').textContent = element('total-of').textContent = '';
    if (now === null) {
      return;
    }
    const started = performance.now();
    const map = heatmap({
      days, timeZone, now,
      aggregates: historicData,
      fetchedAt: historicDataFetchedAt,
      live: live.since(historicRequest ?? 0, source),
    });
    grid.render(map);
    performance.measure('steep: render', { start: started, end: performance.now() });
    // Observers have received it; a page that stays open for days must not keep them all.
    performance.clearMeasures('steep: render');

    // Isolated, so that a right-to-left name does not reorder the words around it.
    const period = `in the last ${days} days, ${source === null ? 'all sources' : `\u2068source ${source}\u2069`}`;
    drawTotal(map.sum.count, map.sum.complete, period);
    element('caption').textContent =
      `Events by hour ${period}. Times are in ${timeZone}, newest day first.`;
    drawLegend(map.steps);
    drawNote(now, historicDataFetchedAt, timeZone);
    drawEmpty(historicDataStatus, map.sum.count, period, `${days} days loaded.`);
    refreshTooltip();
    if (!isFirstDrawDone && historicDataFetchedAt !== null) {
      isFirstDrawDone = true;
      grid.showCurrent();
      requestAnimationFrame(() => setTimeout(() => performance.mark('steep: painted'), 0));
    }
  }

  /**
   * @param {HistoricState<'source'>} state
   * @param {Choices} choices
   * @param {Live} live
   * @param {number | null} now  the server's time
   */
  function drawRanking(state, { days, source, timeZone }, live, now) {
    const { historicData, historicDataStatus, historicDataFetchedAt: fetchedAt, historicRequest } = state;
    element('shown').hidden = true;
    element('ranking').hidden = false;
    element('heatmap-title').textContent = 'Events by source';
    const first = hourOf((fetchedAt ?? now ?? 0) - days * DAY_MS);
    const drawn = ranking.draw(historicData, first, live.sourcesSince(historicRequest ?? 0, first), source);
    const period = `in the last ${days} days`;
    drawTotal(drawn.events, fetchedAt !== null, `${period}, ${sourcesText(drawn.sources)}`);
    element('ranked-at').textContent = fetchedAt === null ? '' : `Updated ${timeText(fetchedAt, timeZone)}.`;
    drawEmpty(historicDataStatus, drawn.events, `${period}, all sources`, `${sourcesText(historicData.length)} loaded.`);
    refreshTooltip();
  }

  /**
   * @param {number} count
   * @param {boolean} complete
   * @param {string} period
   */
  function drawTotal(count, complete, period) {
    element('total').textContent = count === 0 && !complete ? '' : events(count);
    element('total-of').textContent = complete ? period : count ? '(not all hours are loaded)' : '';
  }

  /**
   * The notice for no events, and what is announced of an answer.
   * @param {string} status
   * @param {number} count
   * @param {string} period
   * @param {string} loaded
   */
  function drawEmpty(status, count, period, loaded) {
    const empty = status === 'success' && count === 0;
    element('empty').hidden = !empty;
    element('empty').textContent = empty ? `No events ${period}.` : '';
    if (status === 'success') {
      announce(empty ? `No events ${period}.` : loaded);
    }
  }

  /** @param {import('./scale.js').Step[]} steps */
  function drawLegend(steps) {
    const key = JSON.stringify(steps);
    if (key === legend) {
      return;
    }
    legend = key;
    /** @type {[string, string, string][]} class, text in the swatch, meaning */
    const entries = [
      ...steps.map(({ level, from, to }) => /** @type {[string, string, string]} */ (
        [`count level-${level}`, '', from === to ? `${from}` : `${from}–${to}`])),
      ['zero', '0', 'none'],
      ['future', '', 'future'],
      ['unloaded', '?', 'not loaded'],
      ['zero current', '', 'current hour'],
      ['zero partial', '', 'partial hour'],
    ];
    element('legend').replaceChildren(...entries.map(([look, text, meaning]) => {
      const item = document.createElement('li');
      const swatch = document.createElement('span');
      swatch.className = `swatch ${look}`;
      swatch.textContent = text;
      swatch.ariaHidden = 'true';
      item.append(swatch, meaning);
      return item;
    }));
  }

  return {
    drawNotices,
    drawHeatmap,
    drawRanking,
    /** The next draw is the first one of another viewer. */
    reset() {
      ranking.reset();
      isFirstDrawDone = false;
    },
  };
}

/** @param {number} count */
function sourcesText(count) {
  return `${number(count)} ${count === 1 ? 'source' : 'sources'}`;
}

/**
 * @param {number} now
 * @param {number | null} fetchedAt
 * @param {string} timeZone
 */
function drawNote(now, fetchedAt, timeZone) {
  const { offset } = localTimeIn(timeZone)(now);
  const minute = ((offset % 60) + 60) % 60;
  element('as-of').textContent = [
    fetchedAt === null ? '' : `Updated ${timeText(fetchedAt, timeZone)}.`,
    timeZone === 'UTC' ? 'Times are in UTC.' : `Times are in ${timeZone} (${offsetText(offset)}).`,
    minute ? `Each count is of a UTC hour, which starts at ${twoDigits(minute)} minutes past the local hour.` : '',
  ].filter(Boolean).join(' ');
}

/**
 * @param {number} instant
 * @param {string} timeZone
 */
function timeText(instant, timeZone) {
  const { date, hour, minute } = localTimeIn(timeZone)(instant);
  return `${dateTexts(date).short}, ${twoDigits(hour)}:${twoDigits(minute)}`;
}

/**
 * Announces a text to screen readers, unless it was the last one.
 * @param {string} text
 */
function announce(text) {
  const region = element('announcement');
  if (region.textContent !== text) {
    region.textContent = text;
  }
}
