// Which tables and columns the models of this web console have, each column with the definition that its start gives it
// (null: it leaves that alone), without a connection. Its argument is the web's folder.
// A folder SCHEMA_models holds a file for each table: that is how its own start finds them.
'use strict';
const fs = require('fs');
const path = require('path');

const web = process.argv[1];
const Sequelize = require(path.join(web, 'node_modules', 'sequelize'));
const known = {};

function load(folder, schema) {
  const sequelize = new Sequelize(schema, '', '', { dialect: 'mysql', logging: false });
  const queries = sequelize.getQueryInterface();
  const generator = queries.queryGenerator || queries.QueryGenerator;
  known[schema] = known[schema] || {};
  for (const name of fs.readdirSync(folder).filter((name) => name.endsWith('.js'))) {
    const file = path.join(folder, name);
    const model = sequelize.import ? sequelize.import(file) : require(file)(sequelize, Sequelize.DataTypes);
    const fields = model.fieldRawAttributesMap || model.rawAttributes;
    const columns = (known[schema][model.tableName] = {});
    for (const field of Object.keys(fields)) columns[field] = definition(sequelize, generator, model.tableName, fields, field);
  }
}

// What `sync({ alter: true })` writes behind the column's name.
function definition(sequelize, generator, table, fields, field) {
  if (fields[field].primaryKey) return null;
  try {
    const attribute = sequelize.normalizeAttribute(Object.assign({}, fields[field]));
    return generator.attributesToSQL({ [field]: attribute }, { context: 'changeColumn', table })[field] || null;
  } catch (error) {
    return null;
  }
}

function walk(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory() || ['node_modules', 'client', 'files'].includes(entry.name)) continue;
    const below = path.join(folder, entry.name);
    const named = /^(.+)_models$/.exec(entry.name);
    if (named) load(below, named[1]);
    else walk(below);
  }
}

walk(web);
process.stdout.write('\ntarsup-columns ' + JSON.stringify(known) + '\n', () => process.exit(0));
