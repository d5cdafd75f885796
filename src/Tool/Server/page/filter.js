// Filters as texts: their condition and their order apart, and one condition more.

/** The same length with quoted texts blanked out, so that words within them are not taken for the language's. */
const bare = text => text.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`/g, quoted => '_'.repeat(quoted.length));

/** The condition of a filter, and the keys of its order. */
export function parts(filter) {
  const order = /(^|\s)order\s+by\s/i.exec(`${bare(filter)} `);
  return order ? { condition: filter.slice(0, order.index).trim(), order: filter.slice(order.index + order[0].length).trim() } : { condition: filter.trim(), order: '' };
}

export const whole = ({ condition, order }) => [condition, order && `order by ${order}`].filter(Boolean).join(' ');

/** Whether an "or" stands outside brackets, where an "and" beside it would bind closer. */
function loose(condition) {
  let depth = 0;
  for (const [token] of bare(condition).matchAll(/[()]|[\w.]+/g)) {
    if (token === '(' || token === ')')
      depth += token === '(' ? 1 : -1;
    else if (depth === 0 && token.toLowerCase() === 'or')
      return true;
  }
  return false;
}

/** A filter that asks for something more: what was typed stays. An order that the addition has takes the place of the one before. */
export function add(filter, more) {
  const typed = parts(filter), added = parts(more), bracketed = condition => loose(condition) ? `(${condition})` : condition;
  const known = typed.condition === added.condition || typed.condition.endsWith(` and ${bracketed(added.condition)}`);
  const condition = typed.condition === '' || added.condition === '' || known ? (known ? typed.condition : typed.condition || added.condition) : `${bracketed(typed.condition)} and ${bracketed(added.condition)}`;
  return whole({ condition, order: added.order || typed.order });
}
