'use strict';

// The database, in PostgreSQL. The stand-in asks it with psql, so that there is nothing to install; DATABASE_URL holds
// no password, because arguments can be seen by all: ~/.pgpass has it.

const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');

const directory = path.join(__dirname, 'migrations');

/** Runs SQL in one transaction; the lines of its answer. Throws when it fails. */
function sql(text) {
  const address = process.env.DATABASE_URL;
  if (!address) throw new Error('DATABASE_URL is not set');
  const options = ['-XqAt1', '--no-password', '--set', 'ON_ERROR_STOP=1', '--dbname', address];
  const answer = execFileSync(process.env.PSQL || 'psql', options, { input: text, encoding: 'utf8', timeout: 5000 });
  return answer.split('\n').filter(Boolean);
}

/** The names of the migrations that this version of the code brings. */
function known() {
  return fs.readdirSync(directory).map((name) => path.basename(name, '.sql')).sort();
}

/** Those of them that the database has not seen. */
function missing() {
  const [exists] = sql("SELECT to_regclass('public.migrations') IS NOT NULL");
  const applied = new Set(exists === 't' ? sql('SELECT name FROM public.migrations') : []);
  return known().filter((name) => !applied.has(name));
}

/** Runs one, and notes that. One that fails leaves the database as it was. */
function migrate(name) {
  sql(`
    SET client_min_messages TO warning;
    CREATE TABLE IF NOT EXISTS public.migrations (name text PRIMARY KEY);
    ${fs.readFileSync(path.join(directory, `${name}.sql`), 'utf8')}
    INSERT INTO public.migrations VALUES ('${name}');
  `);
}

module.exports = { known, migrate, missing };
