// Drives Firefox over WebDriver BiDi, for firefox.py: each line of standard input is a call,
// [name, ...arguments] in JSON, and is answered by a line, {"value": …} or {"error": "…"}.
//
//   node firefox.js PACKAGE URL
//
// PACKAGE is the folder of puppeteer-core, URL where Firefox listens. Only the modules that
// speak to a browser are loaded: the others start browsers, and need many more packages.
'use strict';

const { createInterface } = require('node:readline');

const [folder, url] = process.argv.slice(2);
const load = (name) => require(`${folder}/lib/cjs/puppeteer/${name}.js`);
const { BidiBrowser } = load('bidi/Browser');
const { BidiConnection } = load('bidi/Connection');
const { NodeWebSocketTransport } = load('node/NodeWebSocketTransport');
const { createIncrementalIdGenerator } = load('util/incremental-id-generator');

/** The calls on a new tab. */
async function openTab(browser) {
  const tab = await browser.newPage();
  await tab.setViewport({ width: 1280, height: 900 });
  const errors = [];
  // Also what the Content-Security-Policy forbids. An answer that was cut off is no fault of a script.
  tab.on('pageerror', ({ message }) => message.startsWith('Failed to read data from') || errors.push(message));
  return {
    get: (address) => tab.goto(address).then(() => null),
    reload: () => tab.reload().then(() => null),
    // The body of a function, which finds its arguments in arguments.
    run: (body, ...given) => tab.evaluate(new Function(body), ...given),
    click: (selector) => tab.click(selector),
    type: (selector, text) => tab.type(selector, text),
    hover: (selector) => tab.hover(selector),
    async press(key, holding) {
      if (holding) {
        await tab.keyboard.down(holding);
      }
      await tab.keyboard.press(key);
      if (holding) {
        await tab.keyboard.up(holding);
      }
    },
    beforeEachPage: (script) => tab.evaluateOnNewDocument(script).then(() => null),
    setTimeZone: (zone) => tab.emulateTimezone(zone),
    setViewport: (width, height) => tab.setViewport({ width, height }),
    screenshot: () => tab.screenshot({ fullPage: true, encoding: 'base64' }),
    errors: () => errors,
    close: () => tab.close(),
  };
}

async function main() {
  const connection = new BidiConnection(url, await NodeWebSocketTransport.create(url), createIncrementalIdGenerator());
  const browser = await BidiBrowser.create({ connection, defaultViewport: null });
  let tab;
  const open = async () => { tab = await openTab(browser); };
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...given] = JSON.parse(line);
    const answer = await (name === 'open' ? open() : Promise.resolve().then(() => tab[name](...given)))
      .then((value) => ({ value }), (error) => ({ error: String(error?.stack ?? error) }));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser.close();
  process.exit();
}

main();
