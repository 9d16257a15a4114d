'use strict';

// A new database is at this one already.

module.exports = (content) => content;
