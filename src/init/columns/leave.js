// Loaded before the web console: its start leaves the columns of TARSUP_LEAVE (SCHEMA.TABLE.COLUMN,...) as they are, as they
// hold values that its models have no room for. Where that cannot be had, nothing is started.
'use strict';
try {
  const path = require('path');
  const Sequelize = require(path.join(process.cwd(), 'node_modules', 'sequelize'));
  const left = new Set(process.env.TARSUP_LEAVE.split(','));
  const any = new Sequelize('any', '', '', { dialect: 'mysql', logging: false });
  const queries = Object.getPrototypeOf(any.getQueryInterface());
  const change = queries.changeColumn;
  if (typeof change !== 'function') throw new Error('this sequelize has no changeColumn');
  queries.changeColumn = function (table, column, ...rest) {
    const name = typeof table === 'object' ? table.tableName : table;
    const place = [this.sequelize.config.database, name, column].join('.');
    return left.has(place) ? Promise.resolve() : change.call(this, table, column, ...rest);
  };
} catch (error) {
  console.error('Error: the columns ' + process.env.TARSUP_LEAVE + ' cannot be left as they are: ' + error.message);
  process.exit(1);
}
