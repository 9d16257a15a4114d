'use strict';

// A new database has this schema already.

module.exports = (content) => content;
