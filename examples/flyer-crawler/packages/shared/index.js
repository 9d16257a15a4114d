'use strict';

// Shared by the three processes: the database, the flyers, and a clean end.

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { fileURLToPath } = require('node:url');

const BASE_SCHEMA = 1; // what a new database comes with

/** The stand-in for PostgreSQL: a JSON file, named by DATABASE_URL (file:///srv/...). */
class Database {
  constructor(address = process.env.DATABASE_URL) {
    if (!address) throw new Error('DATABASE_URL is not set');
    this.file = fileURLToPath(address);
  }

  read() {
    try {
      return JSON.parse(fs.readFileSync(this.file, 'utf8'));
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
      return { schema: BASE_SCHEMA };
    }
  }

  write(content) {
    fs.mkdirSync(path.dirname(this.file), { recursive: true });
    fs.writeFileSync(`${this.file}.new`, JSON.stringify(content));
    fs.renameSync(`${this.file}.new`, this.file);
  }
}

/** [number, file] of every migration that this version of the code knows, in order. */
function migrations(directory) {
  const files = fs.readdirSync(directory).filter((file) => /^\d+-.*\.js$/.test(file));
  return files.sort().map((file) => [parseInt(file, 10), path.join(directory, file)]);
}

/** Flyers are files, in a directory that all releases share: new/ -> read/. */
class Flyers {
  constructor(directory = process.env.FLYER_IMAGES || 'flyer-images') {
    this.directory = path.resolve(directory);
    for (const state of ['new', 'read']) fs.mkdirSync(path.join(this.directory, state), { recursive: true });
  }

  add(id, text) {
    fs.writeFileSync(path.join(this.directory, `.${id}`), text);
    fs.renameSync(path.join(this.directory, `.${id}`), path.join(this.directory, 'new', id));
  }

  list(state) {
    return fs.readdirSync(path.join(this.directory, state)).sort();
  }

  finish(id) {
    fs.renameSync(path.join(this.directory, 'new', id), path.join(this.directory, 'read', id));
  }
}

/** Does `step` again and again, with a pause, until PM2 asks the process to end (SIGINT). */
async function repeat(step, pause = 200) {
  const ending = new AbortController();
  process.once('SIGINT', () => ending.abort());
  while (!ending.signal.aborted) {
    await step();
    await sleep(pause, null, { signal: ending.signal }).catch(() => {});
  }
}

module.exports = { Database, Flyers, migrations, repeat };
