// The calls of a page, made by Node, whose fetch speaks HTTP/1.1; prints what it found.
import {connect} from './calls.js';

const found = {};
for (const [name, attempt] of Object.entries(connect(process.argv[2], process.argv[3]))) {
  try {
    found[name] = await attempt();
  } catch (error) {
    found[name] = `${error.name}: ${error.message}`;
  }
}
console.log(JSON.stringify(found));
process.exit(0);
