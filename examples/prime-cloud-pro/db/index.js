'use strict';

// The database, in PostgreSQL. The stand-in runs psql, so nothing has to be installed. DATABASE_URL has no password,
// because every user can see arguments: ~/.pgpass has it.

const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');

const directory = path.join(__dirname, 'migrations');

/** Runs SQL in one transaction, and returns the lines of the answer. Throws if it fails. */
function sql(text) {
  const address = process.env.DATABASE_URL;
  if (!address) throw new Error('DATABASE_URL is not set');
  const options = ['-XqAt1', '--no-password', '--set', 'ON_ERROR_STOP=1', '--dbname', address];
  const answer = execFileSync(process.env.PSQL || 'psql', options, { input: text, encoding: 'utf8', timeout: 5000 });
  return answer.split('\n').filter(Boolean);
}

/** The names of this version's migrations. */
function known() {
  return fs.readdirSync(directory).map((name) => path.basename(name, '.sql')).sort();
}

/** The names of the migrations that the database has not had. */
function missing() {
  const [exists] = sql("SELECT to_regclass('public.migrations') IS NOT NULL");
  const applied = new Set(exists === 't' ? sql('SELECT name FROM public.migrations') : []);
  return known().filter((name) => !applied.has(name));
}

/** Runs a migration, and records it. If it fails, the database stays as it was. */
function migrate(name) {
  sql(`
    SET client_min_messages TO warning;
    CREATE TABLE IF NOT EXISTS public.migrations (name text PRIMARY KEY);
    ${fs.readFileSync(path.join(directory, `${name}.sql`), 'utf8')}
    INSERT INTO public.migrations VALUES ('${name}');
  `);
}

module.exports = { known, migrate, missing };
