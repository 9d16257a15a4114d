'use strict';

// A queue made of files, one JSON file an order: new/ -> active/ -> done/. Every step is one rename on one file system,
// so an order is always complete in exactly one of the three directories, whichever process is killed at any time.

const fs = require('node:fs/promises');
const path = require('node:path');
const { randomUUID } = require('node:crypto');

class Spool {
  constructor(directory) {
    this.directory = directory;
  }

  async open() {
    for (const state of ['tmp', 'new', 'active', 'done']) {
      await fs.mkdir(this.#path(state), { recursive: true });
    }
  }

  /** Throws if the spool cannot be written to. */
  async check() {
    await fs.access(this.#path('new'), fs.constants.W_OK | fs.constants.X_OK);
  }

  async add(order) {
    const id = randomUUID();
    await this.#write('new', id, order);
    return id;
  }

  /** Takes up to `limit` orders, oldest first. For one worker: `takeBack` returns the orders of a dead one. */
  async take(limit) {
    const waiting = await this.#list('new');
    const ages = await Promise.all(waiting.map(async (id) => [(await fs.stat(this.#path('new', id))).mtimeMs, id]));
    const taken = ages.sort(([a], [b]) => a - b).slice(0, limit).map(([, id]) => id);
    for (const id of taken) await fs.rename(this.#path('new', id), this.#path('active', id));
    return taken;
  }

  async takeBack() {
    const left = await this.#list('active');
    for (const id of left) await fs.rename(this.#path('active', id), this.#path('new', id));
    return left;
  }

  async read(state, id) {
    return JSON.parse(await fs.readFile(this.#path(state, id), 'utf8'));
  }

  async finish(id, order) {
    await this.#write('done', id, order);
    await fs.unlink(this.#path('active', id));
  }

  /** {state, order}, or null if there is no such order. */
  async find(id) {
    for (const state of ['new', 'active', 'done']) {
      try {
        return { state, order: await this.read(state, id) };
      } catch (error) {
        if (error.code !== 'ENOENT') throw error;
      }
    }
    return null;
  }

  async #write(state, id, order) {
    await fs.writeFile(this.#path('tmp', id), JSON.stringify(order));
    await fs.rename(this.#path('tmp', id), this.#path(state, id));
  }

  async #list(state) {
    return (await fs.readdir(this.#path(state))).map((file) => path.basename(file, '.json'));
  }

  #path(state, id) {
    return path.join(this.directory, state, ...(id ? [`${id}.json`] : []));
  }
}

module.exports = { Spool };
