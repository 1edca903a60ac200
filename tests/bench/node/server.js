// POST /ingest as one would write it for Node.js, with fastify and pg: what steep is compared
// with. Like ingest.fcgi, it stands behind nginx, knows the monitors' keys, and stores a batch
// by the data model's bulk_insert_events, one statement for each.
//
//   PG*                   the database
//   PORT                  where it listens, on 127.0.0.1
//   VIBETEA_PUBLIC_KEYS   the registered keys: source:key,source:key
'use strict';

const { createPublicKey, verify } = require('node:crypto');
const fastify = require('fastify');
const { Pool } = require('pg');

const MAX_BODY_BYTES = 5 * 1024 * 1024;
const MAX_EVENTS = 1000;
const EVENT_TYPES = new Set(['session', 'activity', 'tool', 'agent', 'summary', 'error']);
// What stands in front of the 32 bytes of an Ed25519 key in its DER form.
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

class Refusal extends Error {
  constructor(statusCode, code, message) {
    super(message);
    Object.assign(this, { statusCode, code });
  }
}

/** The keys of each source. */
function readKeys(text) {
  const keys = new Map();
  for (const entry of text.split(',').filter(Boolean)) {
    const colon = entry.lastIndexOf(':');
    const source = entry.slice(0, colon);
    const der = Buffer.concat([SPKI_PREFIX, Buffer.from(entry.slice(colon + 1), 'base64')]);
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
    keys.set(source, [...(keys.get(source) ?? []), key]);
  }
  return keys;
}

function authenticate(keys, headers, body) {
  const { 'x-source-id': source, 'x-signature': signature } = headers;
  if (!source || !signature) {
    throw new Refusal(401, 'missing_auth', 'X-Source-ID and X-Signature are required.');
  }
  const known = keys.get(source);
  if (!known) {
    throw new Refusal(401, 'unknown_source', 'No key is registered for this source.');
  }
  const bytes = Buffer.from(signature, 'base64');
  if (!known.some((key) => verify(null, body, key, bytes))) {
    throw new Refusal(401, 'invalid_signature', 'The signature is not of this body and source.');
  }
  return source;
}

/** The code of the first rule that an event breaks, or undefined. */
function brokenRule(event, source) {
  if (event === null || typeof event !== 'object') return 'invalid_event';
  if (typeof event.id !== 'string' || !/^evt_./.test(event.id)) return 'invalid_event_id';
  if (event.source !== source) return 'source_mismatch';
  if (Number.isNaN(Date.parse(event.timestamp))) return 'invalid_timestamp';
  if (!EVENT_TYPES.has(event.eventType ?? event.type)) return 'invalid_event_type';
  if (event.payload === null || typeof event.payload !== 'object') return 'invalid_payload';
  return undefined;
}

/** The number of events of a valid batch. */
function check(text, source) {
  let events;
  try {
    events = JSON.parse(text);
  } catch {
    throw new Refusal(400, 'invalid_request', 'The body is not JSON.');
  }
  if (!Array.isArray(events)) throw new Refusal(400, 'invalid_request', 'The body is not an array.');
  if (events.length === 0) throw new Refusal(400, 'empty_batch', 'The batch has no events.');
  if (events.length > MAX_EVENTS) throw new Refusal(400, 'batch_too_large', 'The batch is too large.');
  events.forEach((event, index) => {
    const code = brokenRule(event, source);
    if (code) throw new Refusal(422, code, `Event ${index} is invalid.`);
  });
  return events.length;
}

const keys = readKeys(process.env.VIBETEA_PUBLIC_KEYS ?? '');
const pool = new Pool();
// An idle connection that breaks is replaced at the next request.
pool.on('error', (error) => console.error(error.message));

const server = fastify({ bodyLimit: MAX_BODY_BYTES });

// The signature is of the body's exact bytes.
server.removeAllContentTypeParsers();
server.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body));

server.setErrorHandler((error, request, reply) => {
  if (error instanceof Refusal) {
    reply.code(error.statusCode).send({ error: error.code, message: error.message });
  } else if (error.statusCode) {
    reply.code(error.statusCode).send({ error: 'invalid_request', message: 'The request is invalid.' });
  } else {
    console.error(error.message);
    reply.code(503).send({ error: 'unavailable', message: 'The database is not available.' });
  }
});

server.post('/ingest', async (request) => {
  const body = request.body ?? Buffer.alloc(0);
  const source = authenticate(keys, request.headers, body);
  const text = body.toString();
  const count = check(text, source);
  const { rows } = await pool.query('SELECT inserted_count FROM bulk_insert_events($1)', [text]);
  // A bigint, which pg returns as a string.
  const inserted = Number(rows[0].inserted_count);
  return { inserted, duplicates: count - inserted, message: `Stored ${inserted} of ${count} events.` };
});

async function stop() {
  await server.close();
  await pool.end();
}

process.once('SIGTERM', stop);
server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
