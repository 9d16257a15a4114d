'use strict';

/** The stand-in for a connection pool: says "connected" if the address is that of a PostgreSQL database. */
function state(address) {
  try {
    const { protocol, hostname, pathname } = new URL(address);
    return protocol === 'postgresql:' && hostname && pathname.length > 1 ? 'connected' : 'bad address';
  } catch {
    return address ? 'bad address' : 'not configured';
  }
}

module.exports = { state };
