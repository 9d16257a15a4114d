'use strict';

// What the shop sells, in PostgreSQL. Host, user and passfile are PostgreSQL's own variables: PGHOST, PGPORT, PGUSER,
// PGPASSFILE. Without a database (SHOP_DATABASE) the shop runs, and has no list of products.

const { Pool } = require('pg');

class Catalogue {
  constructor(database, log) {
    this.pool = database ? new Pool({ database, max: 4, connectionTimeoutMillis: 2000 }) : null;
    // The server may end an idle connection; the next query takes a new one.
    this.pool?.on('error', (error) => log.warn({ error: error.message }, 'a connection to the database ended'));
  }

  async products() {
    if (!this.pool) return [];
    return (await this.pool.query('SELECT name, cents FROM products ORDER BY name')).rows;
  }

  /** Throws if the products cannot be read. */
  async check() {
    await this.pool?.query('SELECT FROM products LIMIT 1');
  }
}

module.exports = { Catalogue };
