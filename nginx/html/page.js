/** The page: connects the controls, the stores, the live events and the views. */

import { createCombobox } from './combobox.js';
import { createLive, readEvent } from './live.js';
import { listen } from './socket.js';
import { createSources } from './sources.js';
import { createStore } from './store.js';
import { localTimeZone } from './time.js';
import { forgetRefusedToken, forgetToken, keepToken, readToken, watchToken } from './token.js';
import { createViews, element } from './views.js';

/**
 * @template {import('./answer.js').GroupBy} G
 * @typedef {import('./store.js').Store<G>} Store
 */

const CONFIGURATION_TIMEOUT_MS = 10_000;

const controls = /** @type {HTMLFormElement} */ (element('controls'));
const zone = localTimeZone();
const views = createViews((source) => {
  filter.set(source);
  chooseSource(source);
  // The row disappears.
  element('heatmap-title').focus();
});
/** Every source seen so far, so that the filter keeps offering all of them. */
const sources = createSources();
const filter = createCombobox({
  input: element('source'), popup: element('source-popup'), list: element('source-list'),
  note: element('source-note'), region: element('source-region'), clear: element('source-clear'),
}, { sources, all: 'All sources', missing: missingSources, onOpen: fetchSources, onChoose: chooseSource });

/** The live events, by the requests of the store of the same name. */
const live = { hour: createLive(), source: createLive() };
/** @type {{ hour: Store<'hour'>, source: Store<'source'> } | null} */
let stores = null;
/** @type {(() => void) | null} */
let stopListening = null;
let webSocketUrl = '';
/** @type {readonly { source: string }[] | null} the last answer, whose sources are among them */
let lastSources = null;
let isDrawScheduled = false;
/** The time of the newest live event: the current time, until an answer contains the server's. */
let newestEventTime = -Infinity;

/**
 * Counts a live event: an object with at least `source` and `timestamp`.
 * @param {unknown} event
 * @returns {boolean} whether the event is valid
 */
export function addEvent(event) {
  const read = readEvent(event);
  if (!read) {
    return false;
  }
  live.hour.add(event, stores?.hour.requests ?? 0);
  live.source.add(event, stores?.source.requests ?? 0);
  if (sources.add(read.source)) {
    filter.add(read.source);
  }
  newestEventTime = Math.max(newestEventTime, read.instant);
  requestDraw();
  return true;
}

function requestDraw() {
  if (!isDrawScheduled) {
    isDrawScheduled = true;
    requestAnimationFrame(draw);
  }
}

/**
 * The values of the controls.
 * @returns {import('./views.js').Choices}
 */
function readControls() {
  const chosen = new FormData(controls);
  return {
    view: chosen.get('view') === 'source' ? 'source' : 'hour',
    days: /** @type {7 | 30} */ (Number(chosen.get('days'))),
    source: filter.chosen,
    timeZone: chosen.get('zone') === 'utc' ? 'UTC' : zone,
  };
}

function draw() {
  isDrawScheduled = false;
  if (!stores) {
    return;
  }
  const states = { hour: stores.hour.getState(), source: stores.source.getState() };
  const refused = Object.values(states).find(({ historicDataErrorStatus }) => historicDataErrorStatus === 401);
  if (refused) {
    // Invalid or expired.
    forgetRefusedToken();
    restart(refused.historicDataError ?? '');
    return;
  }
  const signedIn = readToken() !== '';
  element('sign-in').hidden = signedIn;
  element('heatmap').hidden = !signedIn;
  element('sign-out').hidden = !signedIn;
  if (!signedIn) {
    return;
  }
  const choices = readControls();
  const now = stores.hour.now() ?? stores.source.now() ??
    (newestEventTime > 0 ? newestEventTime : null);
  views.drawNotices(states[choices.view], choices);
  drawRetryIn();
  if (choices.view === 'hour') {
    views.drawHeatmap(states.hour, choices, live.hour, now);
  } else {
    views.drawRanking(states.source, choices, live.source, now);
  }
  offerSources(states.source.historicData);
}

/**
 * Offers the sources of an answer, and those of live events, in the filter.
 * @param {readonly { source: string }[]} answer
 */
function offerSources(answer) {
  const isNew = answer !== lastSources;
  lastSources = answer;
  filter.refresh(isNew && sources.addAll(answer));
}

/** Why the filter does not offer all sources. */
function missingSources() {
  const { historicDataStatus: status, historicDataFetchedAt } = stores?.source.getState() ?? {};
  if (historicDataFetchedAt !== null) {
    return '';
  }
  return status === 'loading' ? 'Fetching more…' : status === 'error' ? 'Unable to load the others.' : '';
}

function drawRetryIn() {
  const store = stores?.[readControls().view];
  const wait = store?.historicDataStatus === 'error' ? store.retryIn() : null;
  element('error-wait').textContent = wait === null ? '' : `Retrying in ${Math.ceil(wait / 1000)} s.`;
}

function signIn() {
  if (webSocketUrl !== '' && !stopListening) {
    stopListening = listen(webSocketUrl, addEvent);
  }
  fetchSelected();
}

/**
 * Clears the page, and continues with the stored token or the sign-in form.
 * @param {string} error  to show in the sign-in form, '' for none
 */
function restart(error) {
  stopListening?.();
  stopListening = null;
  sources.clear();
  lastSources = null;
  newestEventTime = -Infinity;
  controls.reset();
  filter.set(null);
  views.reset();
  live.hour.clear();
  live.source.clear();
  stores?.hour.clearHistoricData();
  stores?.source.clearHistoricData();
  const signedIn = readToken() !== '';
  if (signedIn) {
    signIn();
  }
  draw();
  showTokenError(signedIn ? '' : error);
  if (!signedIn) {
    element('token').focus();
  }
}

/** @param {string} error  '' for none */
function showTokenError(error) {
  element('token-error').textContent = error;
  element('token').setAttribute('aria-invalid', `${error !== ''}`);
}

/** Asks for what is shown. The list of the sources waits for the heatmap, unless it is shown. */
function fetchSelected() {
  const { view, days, source } = readControls();
  stores?.hour.fetchHistoricData(days, source);
  if (view === 'source') {
    fetchSources();
  }
}

function fetchSources() {
  stores?.source.fetchHistoricData(readControls().days);
}

/**
 * Shows a source in the heatmap; null stays in the view.
 * @param {string | null} source
 */
function chooseSource(source) {
  if (source !== null) {
    /** @type {HTMLInputElement} */ (element('view-hour')).checked = true;
  }
  fetchSelected();
  requestDraw();
}

/** @param {Event} event */
function onSignIn(event) {
  event.preventDefault();
  const field = /** @type {HTMLInputElement} */ (element('token'));
  const token = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    showTokenError('The token is invalid: it must contain only letters, digits and punctuation, no spaces.');
    return;
  }
  keepToken(token, /** @type {HTMLInputElement} */ (element('remember')).checked);
  field.value = '';
  showTokenError('');
  signIn();
  draw();
  element('heatmap-title').focus();
}

function onRetry() {
  // The button disappears, so move the focus first.
  element('heatmap-title').focus();
  stores?.[readControls().view].retryHistoricData();
}

/** @returns {Promise<{ baseUrl: string, webSocketUrl: string }>} */
async function readConfiguration() {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), CONFIGURATION_TIMEOUT_MS);
  const response = await fetch('config.json', { cache: 'no-cache', signal: controller.signal });
  const { baseUrl, webSocketUrl } = await response.json();
  if (typeof baseUrl !== 'string' || typeof webSocketUrl !== 'string') {
    throw new TypeError('baseUrl and webSocketUrl must be strings');
  }
  return { baseUrl, webSocketUrl };
}

async function start() {
  let configuration;
  try {
    configuration = await readConfiguration();
  } catch {
    element('configuration-error').textContent = 'Unable to load the page’s configuration. Reload the page to retry.';
    element('configuration-error').hidden = false;
    return;
  }
  webSocketUrl = configuration.webSocketUrl;
  const options = { baseUrl: configuration.baseUrl, getToken: readToken };
  const hour = createStore({ ...options, groupBy: 'hour' });
  const source = createStore({ ...options, groupBy: 'source' });
  if (!hour.enabled) {
    return;
  }
  stores = { hour, source };
  hour.subscribe(() => {
    if (hour.historicDataStatus === 'success') {
      live.hour.forgetBefore(hour.oldestRequest);
      fetchSources();
    }
    requestDraw();
  });
  source.subscribe(() => {
    if (source.historicDataStatus === 'success') {
      live.source.forgetBefore(source.oldestRequest);
    }
    requestDraw();
  });
  element('local-zone').textContent = zone;
  element('zones').hidden = zone === 'UTC';
  controls.addEventListener('change', ({ target }) => {
    if (target === element('source')) {
      return;
    }
    fetchSelected();
    requestDraw();
  });
  controls.addEventListener('submit', (event) => event.preventDefault());
  element('token-form').addEventListener('submit', onSignIn);
  element('sign-out').addEventListener('click', () => {
    forgetToken();
    restart('');
  });
  watchToken(() => restart(''));
  element('retry').addEventListener('click', onRetry);
  setInterval(drawRetryIn, 1000);
  draw();
  if (readToken() !== '') {
    signIn();
  }
}

start();
