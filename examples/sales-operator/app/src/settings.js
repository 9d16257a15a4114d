'use strict';

// The same rules as in the deploy's contract, for a start by hand.

const required = ['DATABASE_URL', 'SESSION_SECRET', 'ENCRYPTION_KEY', 'AI_SERVICE_URL', 'AI_SERVICE_TOKEN'];
const missing = required.filter((name) => !process.env[name]);
if (missing.length) throw new Error(`not set: ${missing.join(', ')}`);
if (process.env.SESSION_SECRET.length < 32) throw new Error('SESSION_SECRET has less than 32 characters');
if (Buffer.from(process.env.ENCRYPTION_KEY, 'base64').length !== 32) throw new Error('ENCRYPTION_KEY is not 32 bytes');

module.exports = {
  version: '%VERSION%',
  port: Number(process.env.PORT || 5000),
  service: { url: process.env.AI_SERVICE_URL, token: process.env.AI_SERVICE_TOKEN },
};
