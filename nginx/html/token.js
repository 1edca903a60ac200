/** Where the token is kept: for this tab, or for this browser if the viewer says so. */

const NAME = 'steep.token';

// A browser that forbids storage keeps it as long as the page is open.
let kept = '';

/** @param {(storage: Storage) => void} action */
function withStorages(action) {
  for (const name of /** @type {const} */ (['sessionStorage', 'localStorage'])) {
    try {
      action(window[name]);
    } catch {
      // Forbidden.
    }
  }
}

/** The token, '' when there is none. */
export function readToken() {
  withStorages((storage) => {
    kept = kept || (storage.getItem(NAME) ?? '');
  });
  return kept;
}

/**
 * @param {string} token
 * @param {boolean} remember  also when the tab is closed
 */
export function keepToken(token, remember) {
  forgetToken();
  kept = token;
  try {
    (remember ? localStorage : sessionStorage).setItem(NAME, token);
  } catch {
    // Forbidden.
  }
}

export function forgetToken() {
  kept = '';
  withStorages((storage) => storage.removeItem(NAME));
}
