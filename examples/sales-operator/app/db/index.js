'use strict';

// The stand-in for PostgreSQL and Redis: one JSON file, named by DATABASE_URL (file:///srv/...), and a queue in it.

const fs = require('node:fs');
const path = require('node:path');
const { fileURLToPath } = require('node:url');

function file(address = process.env.DATABASE_URL) {
  if (!address) throw new Error('DATABASE_URL is not set');
  return fileURLToPath(address);
}

/** {migrations: [...]}; empty if there is no database yet. */
function read() {
  try {
    return JSON.parse(fs.readFileSync(file(), 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return { migrations: [] };
  }
}

function write(content) {
  fs.mkdirSync(path.dirname(file()), { recursive: true });
  fs.writeFileSync(`${file()}.new`, JSON.stringify(content));
  fs.renameSync(`${file()}.new`, file());
}

/** The migrations of this version that the database has not had. */
function missing() {
  const names = fs.readdirSync(path.join(__dirname, 'migrations')).map((name) => path.basename(name, '.js'));
  const applied = new Set(read().migrations);
  return names.sort().filter((name) => !applied.has(name));
}

module.exports = { missing, read, write };
