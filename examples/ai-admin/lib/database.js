'use strict';

// The stand-in for a pool of connections to a managed PostgreSQL, which accepts only verified TLS.

const fs = require('node:fs');

/** "connected", or what is wrong. */
function state(address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return 'no address';
  }
  if (url.searchParams.get('sslmode') !== 'verify-full') return 'refused: sslmode is not verify-full';
  try {
    return fs.readFileSync(url.searchParams.get('sslrootcert')).length ? 'connected' : 'refused: empty CA file';
  } catch {
    return 'refused: no CA file';
  }
}

module.exports = { state };
