/**
 * The choice of a source: an editable combobox with list autocomplete, after the pattern of the
 * WAI-ARIA Authoring Practices. Its list contains only the options in view, so that any number of
 * sources costs the same, and tells screen readers how many there are.
 */

import { number } from './grid.js';
import { matcher, placeOf } from './sources.js';

// Above and below the view, so that a fast scroll finds options there.
const SPARE_OPTIONS = 8;

/** @typedef {string | null} Choice  null for all sources */

/**
 * @param {object} elements
 * @param {HTMLInputElement} elements.input
 * @param {HTMLElement} elements.popup   contains list and note
 * @param {HTMLElement} elements.list
 * @param {HTMLElement} elements.note    says how many options there are
 * @param {HTMLElement} elements.region  announces the same to screen readers
 * @param {HTMLElement} elements.clear   the button that chooses all sources
 * @param {object} options
 * @param {string} options.all                         the option for all sources
 * @param {ReturnType<typeof import('./sources.js').createSources>} options.sources
 * @param {() => string} options.missing               why sources are missing, '' if none are
 * @param {() => void} options.onOpen
 * @param {(choice: Choice) => void} options.onChoose
 */
export function createCombobox(
  { input, popup, list, note, region, clear }, { all, sources, missing, onOpen, onChoose },
) {
  /** @type {Choice} */
  let chosen = null;
  /** Whether the viewer has changed the text since a source was chosen. */
  let edited = false;
  /** @type {Choice[]} all that match, of which only those in view are in the list */
  let options = [];
  /** The position of the option that the keys have reached, -1 for none. */
  let active = -1;
  /** @type {Map<Choice, HTMLElement>} the elements in the list */
  let shown = new Map();
  let created = 0;
  let isDue = false;

  const isOpen = () => !popup.hidden;
  const text = () => (edited ? input.value.trim() : '');

  function open() {
    if (isOpen()) {
      return;
    }
    popup.hidden = false;
    input.ariaExpanded = 'true';
    onOpen();
    search();
    if (chosen !== null) {
      reveal(options.indexOf(chosen));
      show();
    }
  }

  function close() {
    popup.hidden = true;
    input.ariaExpanded = 'false';
    region.textContent = '';
    active = -1;
    input.removeAttribute('aria-activedescendant');
  }

  /** Finds the options again: the text or the sources have changed. */
  function search() {
    const reached = active >= 0 ? options[active] : undefined;
    const names = sources.search(text());
    options = text() === '' ? [null, ...names] : names;
    active = reached === undefined ? -1 : options.indexOf(reached);
    show();
    region.textContent = note.textContent;
    // In a low window, or at a high zoom, the list may begin below the edge.
    popup.scrollIntoView({ block: 'nearest' });
  }

  /** Shows the options in view. */
  function show() {
    isDue = false;
    if (!isOpen()) {
      return;
    }
    list.hidden = options.length === 0;
    const height = optionHeight();
    list.style.setProperty('--height', `${options.length * height}px`);
    const first = Math.max(0, Math.floor(list.scrollTop / height) - SPARE_OPTIONS);
    const end = Math.min(options.length, Math.ceil((list.scrollTop + list.clientHeight) / height) + SPARE_OPTIONS);
    const places = Array.from({ length: end - first }, (_, n) => first + n);
    if (active >= 0 && active < first) {
      places.unshift(active);
    } else if (active >= end) {
      places.push(active);
    }
    /** @type {typeof shown} */
    const kept = new Map();
    for (const place of places) {
      const option = options[place];
      const element = shown.get(option) ?? create(option);
      element.style.top = `${place * height}px`;
      element.ariaPosInSet = `${place + 1}`;
      element.ariaSetSize = `${options.length}`;
      element.ariaSelected = `${place === active}`;
      element.classList.toggle('chosen', option === chosen);
      kept.set(option, element);
    }
    for (const [option, element] of shown) {
      if (!kept.has(option)) {
        element.remove();
      }
    }
    shown = kept;
    // An element that stays is not moved: it may be under the pointer.
    let before = list.firstElementChild;
    for (const element of shown.values()) {
      if (element === before) {
        before = before.nextElementSibling;
      } else {
        list.insertBefore(element, before);
      }
    }
    const reached = active >= 0 ? shown.get(options[active]) : undefined;
    if (reached) {
      input.setAttribute('aria-activedescendant', reached.id);
    } else {
      input.removeAttribute('aria-activedescendant');
    }
    tell();
  }

  /** @param {Choice} option */
  function create(option) {
    const element = document.createElement('li');
    element.id = `${list.id}-${++created}`;
    element.setAttribute('role', 'option');
    element.dir = 'auto';
    element.textContent = element.title = option ?? all;
    return element;
  }

  function optionHeight() {
    // In rem, as in style.css.
    return 2.25 * parseFloat(getComputedStyle(document.documentElement).fontSize);
  }

  /** Says how many sources match. */
  function tell() {
    const count = options.length - (options[0] === null ? 1 : 0);
    const found = text() === '' ? `${number(count)} ${count === 1 ? 'source' : 'sources'}.`
      : count === 0 ? 'No source matches.' : `${number(count)} ${count === 1 ? 'source matches' : 'sources match'}.`;
    note.textContent = [found, missing()].filter(Boolean).join(' ');
  }

  /** @param {number} place */
  function setActive(place) {
    active = place;
    reveal(place);
    show();
  }

  /**
   * Scrolls as little as is needed to have an option in view.
   * @param {number} place
   */
  function reveal(place) {
    if (place >= 0) {
      const height = optionHeight();
      list.scrollTop = Math.min(Math.max(list.scrollTop, (place + 1) * height - list.clientHeight), place * height);
    }
  }

  /** @param {1 | -1} step */
  function move(step) {
    if (!isOpen()) {
      open();
    }
    const { length } = options;
    if (length > 0) {
      const first = step < 0 ? length - 1 : Math.max(0, edited ? 0 : options.indexOf(chosen));
      setActive(active < 0 ? first : (active + step + length) % length);
    }
  }

  /** @param {Choice} choice */
  function choose(choice) {
    set(choice);
    onChoose(choice);
  }

  /** @param {Choice} choice */
  function set(choice) {
    chosen = choice;
    edited = false;
    input.value = chosen ?? '';
    clear.hidden = chosen === null;
    close();
  }

  /**
   * Chooses what the text says.
   * @param {boolean} single  also the only source that contains it
   * @returns {boolean} whether it says something
   */
  function chooseText(single) {
    const exact = [input.value, input.value.trim()].find(sources.has);
    if (input.value.trim() === '') {
      choose(null);
    } else if (exact !== undefined) {
      choose(exact);
    } else if (single && options.length === 1) {
      choose(options[0]);
    } else {
      return false;
    }
    return true;
  }

  input.addEventListener('input', () => {
    edited = true;
    open();
    list.scrollTop = 0;
    active = -1;
    search();
  });

  input.addEventListener('click', () => {
    if (!edited) {
      input.select();
    }
    open();
  });

  input.addEventListener('blur', () => {
    // Another window has the focus, until the viewer returns to the text.
    if (document.activeElement === input) {
      return;
    }
    if (input.value === (chosen ?? '') || !chooseText(false)) {
      set(chosen);
    }
  });

  input.addEventListener('keydown', (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey) {
      return;
    }
    const { key, altKey } = event;
    if (key === 'ArrowDown' || key === 'ArrowUp') {
      event.preventDefault();
      if (altKey) {
        (key === 'ArrowDown' ? open : close)();
      } else {
        move(key === 'ArrowDown' ? 1 : -1);
      }
    } else if (key === 'Enter') {
      event.preventDefault();
      if (active >= 0) {
        choose(options[active]);
      } else if (edited) {
        chooseText(true);
      }
    } else if (key === 'Escape') {
      if (isOpen()) {
        set(chosen);
      } else {
        choose(null);
      }
    } else if (['Home', 'End', 'ArrowLeft', 'ArrowRight'].includes(key) && active >= 0) {
      // Back to the text, in which the browser moves the cursor.
      setActive(-1);
    }
  });

  clear.addEventListener('click', () => {
    choose(null);
    input.focus();
  });

  // The focus stays in the input.
  popup.addEventListener('mousedown', (event) => event.preventDefault());
  list.addEventListener('click', ({ target }) => {
    for (const [option, element] of shown) {
      if (element === target) {
        choose(option);
        return;
      }
    }
  });
  list.addEventListener('scroll', () => {
    if (!isDue) {
      isDue = true;
      requestAnimationFrame(show);
    }
  }, { passive: true });

  return {
    get chosen() { return chosen; },

    /**
     * Shows a choice, without a call of onChoose.
     * @param {Choice} choice
     */
    set,

    /**
     * Offers a name that was added to the sources; refresh shows it.
     * @param {string} name
     */
    add(name) {
      if (isOpen() && matcher(text())(name)) {
        const place = placeOf(options, name);
        options.splice(place, 0, name);
        active += active >= place ? 1 : 0;
      }
    },

    /**
     * Shows what was added.
     * @param {boolean} many  whether the options have to be found again
     */
    refresh(many) {
      if (isOpen()) {
        many ? search() : show();
      }
    },
  };
}
