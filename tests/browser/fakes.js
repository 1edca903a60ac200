// A fake clock, server and document for a store. Prepended to the scripts of test_store.py, which
// run in a real browser.

// Waits until an answer has been read and the listeners have been called.
const settle = async () => {
  for (let turn = 0; turn < 12; turn++) {
    await new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = resolve;
      port2.postMessage(null);
    });
  }
};

const clock = {
  time: 5_000,
  timers: new Map(),
  now: () => clock.time,
  setTimeout(action, delay) {
    const timer = Symbol('timer');
    clock.timers.set(timer, { action, at: clock.time + delay });
    return timer;
  },
  clearTimeout: (timer) => clock.timers.delete(timer),
  // Advances the time, and runs the timers that are due.
  async advance(seconds) {
    const end = clock.time + seconds * 1000;
    for (;;) {
      await settle();
      const [timer, due] = [...clock.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!due || due.at > end) {
        break;
      }
      clock.time = Math.max(clock.time, due.at);
      clock.timers.delete(timer);
      due.action();
    }
    clock.time = end;
  },
};

// Sends no answer unless the test or onRequest does. With ignoresAbort, it answers even after an abort.
const server = {
  requests: [],
  ignoresAbort: false,
  onRequest: null,
  fetch: (url, options) => new Promise((resolve, reject) => {
    const request = {
      url, options, at: clock.time,
      answer: async (body, status = 200, headers = {}) => {
        resolve(new Response(typeof body === 'string' ? body : JSON.stringify(body), { status, headers }));
        await settle();
        await settle();
      },
      // Sends the head of an answer, and later its parts.
      begin: async (status = 200, headers = {}) => {
        let controller;
        const body = new ReadableStream({ start(given) { controller = given; }, cancel() { request.cancelled = true; } });
        options.signal.addEventListener('abort', () => server.ignoresAbort || controller.error(options.signal.reason));
        resolve(new Response(body, { status, headers }));
        await settle();
        const then = (action) => async (part) => { action(part); await settle(); };
        return {
          send: then((part) => controller.enqueue(typeof part === 'string' ? new TextEncoder().encode(part) : part)),
          end: then(() => controller.close()),
          cut: then(() => controller.error(new TypeError('network error'))),
        };
      },
      fail: async () => { reject(new TypeError('Failed to fetch')); await settle(); },
    };
    server.requests.push(request);
    options.signal.addEventListener('abort', () => server.ignoresAbort || reject(options.signal.reason));
    if (server.onRequest) {
      server.onRequest(request);
    }
  }),
};

const screen = Object.assign(new EventTarget(), {
  visibilityState: 'visible',
  setVisibility(state) {
    screen.visibilityState = state;
    screen.dispatchEvent(new Event('visibilitychange'));
  },
});

const row = (eventCount, more = {}) => ({ source: 'a', date: '2026-02-03', hour: 14, eventCount, ...more });
const bodyOf = (rows = [row(1)], days = 7, fetchedAt = '2026-02-03T14:10:00.000Z') =>
  ({ aggregates: rows, meta: { totalCount: rows.length, daysRequested: days, fetchedAt } });

const { createStore } = await import('/store.js');
const make = (more = {}) => createStore({
  baseUrl: 'https://steep.example', getToken: () => 'steep_token', fetch: server.fetch, clock, document: screen, ...more,
});
