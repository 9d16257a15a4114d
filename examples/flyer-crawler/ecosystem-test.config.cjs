'use strict';

// Test: the same three processes, named -test.

const base = require('./ecosystem.base.cjs');

module.exports = { apps: base('-test', 'test') };
