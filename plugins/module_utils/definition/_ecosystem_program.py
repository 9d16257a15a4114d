# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The program that node runs to read an ecosystem file. It is a string, as only Python files reach the target."""

from __future__ import annotations

PROGRAM = r"""
'use strict';
// node -e PROGRAM <file> <kind> <fd> <directory of pm2>: writes one length-prefixed JSON to <fd>:
// {"config": ...} or {"error": "..."}. What the file prints goes elsewhere.
const fs = require('fs');
const path = require('path');
const url = require('url');
const vm = require('vm');
const [file, kind, descriptor, pm2] = process.argv.slice(1);
const MAX_VALUES = 200000;
const stringify = JSON.stringify;
let values = 0;

process.argv = [process.execPath, file];

function send(result) {
  const body = Buffer.from(stringify(result));
  const message = Buffer.concat([Buffer.alloc(4), body]);
  message.writeUInt32BE(body.length);
  for (let at = 0; at < message.length;) at += fs.writeSync(Number(descriptor), message, at);
}

class Refused extends Error {}

function plain(value, keyPath, parents) {
  if (++values > MAX_VALUES) throw new Refused('it holds more than ' + MAX_VALUES + ' values');
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new Refused(keyPath + ' is ' + value + ', not a number JSON can hold');
    return value;
  }
  if (typeof value !== 'object') throw new Refused(keyPath + ' is a ' + typeof value + ', PM2 would drop it');
  if (parents.includes(value)) throw new Refused(keyPath + ' refers to itself');
  const inside = parents.concat([value]);
  if (Array.isArray(value)) return Array.from(value, (item, at) => plain(item, keyPath + '[' + at + ']', inside));
  const kindOfObject = Object.prototype.toString.call(value).slice(8, -1);
  if (kindOfObject !== 'Object' || typeof value.toJSON === 'function')
    throw new Refused(keyPath + ' is a ' + kindOfObject + ' object: write it as a string');
  const copy = Object.create(null);
  for (const key of Object.keys(value))
    if (value[key] !== undefined) copy[key] = plain(value[key], keyPath ? keyPath + '.' + key : key, inside);
  return copy;
}

// Only what PM2 reads (API.js:943): apps, or pm2, or the whole; the env of deploy; whether there is static.
function reduce(config) {
  if (typeof config === 'function')
    throw new Refused('it exports a function: PM2 does not call it, export the apps themselves');
  if (config && typeof config.then === 'function')
    throw new Refused('it exports a Promise: PM2 does not wait for it, export the apps themselves');
  if (config === null || typeof config !== 'object') throw new Refused('it exports no apps, but ' + typeof config);
  if (Array.isArray(config)) return {apps: plain(config, 'apps', []), others: []};
  const holder = config.apps ? 'apps' : config.pm2 ? 'pm2' : null;
  const others = Object.keys(config).filter((key) => !['apps', 'pm2', 'deploy', 'static'].includes(key));
  if (!holder && !others.length) throw new Refused('it holds no apps');
  const whole = Object.create(null);
  for (const key of others) whole[key] = config[key];
  const result = {
    apps: holder ? plain(config[holder], holder, []) : plain(whole, '', []),
    others: holder ? others : [],
    static: Boolean(config.static),
    deploy: Object.create(null),
  };
  for (const name of Object.keys(config.deploy || {}))
    if (config.deploy[name] && config.deploy[name].env)
      result.deploy[name] = plain(config.deploy[name].env, 'deploy.' + name + '.env', []);
  return result;
}

function exportsOf(module) {
  if (Object.prototype.toString.call(module) !== '[object Module]') return module;
  return module.default !== undefined && module.apps === undefined ? module.default : Object.assign({}, module);
}

// In an array, because an async function would wait for an exported Promise instead of handing it on.
async function read() {
  if (kind === 'json') {
    const text = fs.readFileSync(file, 'utf8').replace(/^\ufeff/, '');
    return [vm.runInThisContext('(' + text + '\n)', {filename: file})];
  }
  if (kind === 'yaml') {
    const yaml = require(require.resolve('js-yaml', {paths: [pm2]}));
    return [yaml.load(fs.readFileSync(file, 'utf8'))];
  }
  if (path.extname(file) !== '.mjs') {
    try {
      return [exportsOf(require(file))];
    } catch (error) {
      if (!error || error.code !== 'ERR_REQUIRE_ESM') throw error;
    }
  }
  return [exportsOf(await import(url.pathToFileURL(file).href))];
}

function describe(error) {
  if (error instanceof Refused) return error.message;
  // Its message quotes the lines around, which may hold secrets.
  if (error && error.name === 'YAMLException' && error.mark)
    return error.reason + ' (line ' + (error.mark.line + 1) + ', column ' + (error.mark.column + 1) + ')';
  if (!(error instanceof Error) && !(error && error.stack)) return 'it throws ' + String(error);
  const stack = String(error.stack || '').split('\n');
  const place = stack.find((line) => line.includes(file)) || '';
  const said = (error.name || 'Error') + ': ' + error.message;
  return place && !said.includes(place.trim()) ? said + ' (' + place.trim().replace(/^at /, '') + ')' : said;
}

function end(result) {
  send(result);
  process.exit(0);
}

// Without this, node prints the line of source that failed, which may hold secrets.
process.on('uncaughtException', (error) => end({error: describe(error)}));
read().then(([config]) => ({config: reduce(config)})).catch((error) => ({error: describe(error)})).then(end);
"""
