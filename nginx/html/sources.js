/** The names of all sources that were seen, in order, and a search in them. */

export function createSources() {
  /** @type {Set<string>} */
  const known = new Set();
  /** @type {string[]} the known names in order, while isSorted */
  let names = [];
  let isSorted = true;

  function sorted() {
    if (!isSorted) {
      names = [...known].sort();
      isSorted = true;
    }
    return names;
  }

  return {
    /**
     * Adds one name, without sorting the others again.
     * @param {string} name
     * @returns {boolean} whether it is new
     */
    add(name) {
      if (known.has(name)) {
        return false;
      }
      known.add(name);
      if (isSorted) {
        names.splice(placeOf(names, name), 0, name);
      }
      return true;
    },

    /**
     * Adds the names of an answer.
     * @param {readonly { source: string }[]} rows
     * @returns {boolean} whether one of them is new
     */
    addAll(rows) {
      const before = known.size;
      rows.forEach(({ source }) => known.add(source));
      isSorted &&= known.size === before;
      return known.size > before;
    },

    /** @param {string} name */
    has: (name) => known.has(name),

    /**
     * The names that contain a text, in whatever case and Unicode normalization; all names for ''.
     * @param {string} text
     */
    search(text) {
      const matches = matcher(text);
      return sorted().filter(matches);
    },

    clear() {
      known.clear();
      names = [];
      isSorted = true;
    },
  };
}

/**
 * @param {string} text
 * @returns {(name: string) => boolean} whether a name contains the text
 */
export function matcher(text) {
  const wanted = folded(text.trim());
  return (name) => folded(name).includes(wanted);
}

/** @param {string} text */
function folded(text) {
  return text.normalize().toLowerCase();
}

/**
 * Where a name belongs in a sorted list.
 * @param {readonly (string | null)[]} names  null is before all names
 * @param {string} name
 */
export function placeOf(names, name) {
  let from = 0;
  let to = names.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    const other = names[middle];
    if (other === null || other < name) {
      from = middle + 1;
    } else {
      to = middle;
    }
  }
  return from;
}
