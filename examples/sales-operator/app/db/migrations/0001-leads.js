'use strict';

module.exports = (database) => ({ ...database, leads: [] });
