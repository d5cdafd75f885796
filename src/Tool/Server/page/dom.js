// Elements from values. A child that is a string becomes text, never markup: what a run is called cannot become part of the page.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on'))
      element.addEventListener(name.slice(2), value);
    else if (value === true)
      element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

/** Replaces what is in an element, unless that would change nothing: a selection or a focus in it stays. */
export function put(element, ...children) {
  const next = document.createElement('div');
  next.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  if (element.childNodes.length === next.childNodes.length && [...element.childNodes].every((old, i) => old.isEqualNode(next.childNodes[i])))
    return;
  element.replaceChildren(...next.childNodes);
}

/** What may be larger than its room: keys can scroll it too. */
export const scrolling = (label, ...children) => h('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': label }, children);
