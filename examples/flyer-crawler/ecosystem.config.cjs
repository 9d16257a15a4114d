'use strict';

// Production.

const base = require('./ecosystem.base.cjs');

module.exports = { apps: base('', 'production') };
