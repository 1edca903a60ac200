"""A fleet of any size: answers of totals, and of a server without them, in place of the server's."""

FLEET = """
const fetched = window.fetch;
window.asked = [];
window.fetch = async (...given) => {
    const url = new URL(given[0], location.href), get = (name) => url.searchParams.get(name);
    if (!url.pathname.endsWith('/query')) return fetched(...given);
    asked.push(url.search.slice(1));
    const sources = %d, now = Date.now(), daysRequested = Number(get('days'));
    const aggregates = get('group_by') === 'source'
        ? Array.from({ length: sources }, (_, n) => ({ source: `host-${`${n}`.padStart(5, '0')}`, eventCount: Math.round(2e6 / (n + 20)) }))
        : Array.from({ length: 24 * daysRequested }, (_, n) => {
            const stamp = new Date(now - n * 36e5).toJSON();
            return { date: stamp.slice(0, 10), hour: Number(stamp.slice(11, 13)), eventCount: get('source') === null ? 10 * sources : 10 };
        });
    return new Response(JSON.stringify({ aggregates, meta: { daysRequested, fetchedAt: new Date(now).toJSON() } }));
};
"""


def open_fleet(page, sources, token="steep_any"):
    """Show the page with the answers of so many sources; window.asked has the queries."""
    page.before_each_page(FLEET % sources)
    page.open_loaded(token)


# Counts in window.work: elements that were created, added to and removed from the document below a selector, and rows that were sorted.
COUNT_WORK = """
const { createElement, sort } = window.uncounted ??= { createElement: document.createElement, sort: Array.prototype.sort };
window.work = { created: 0, added: 0, removed: 0, sorted: 0 };
document.createElement = function (...given) { work.created++; return createElement.apply(this, given); };
Array.prototype.sort = function (...given) { work.sorted += this.length; return sort.apply(this, given); };
window.observer?.disconnect();
window.observer = new MutationObserver((records) => records.forEach(({ addedNodes, removedNodes }) => {
    work.added += addedNodes.length;
    work.removed += removedNodes.length;
}));
observer.observe(document.querySelector(arguments[0]), { childList: true, subtree: true });
"""


def count_work(page, selector):
    page.run(COUNT_WORK, selector)


def work(page):
    """What was done since count_work."""
    return page.module("await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0))); return { ...work }")
