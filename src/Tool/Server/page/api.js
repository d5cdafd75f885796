// What the server is asked for.

const connection = document.getElementById('connection');

/** An answer, or an error with the server's words. Words of the browser's own mean that nobody answered. */
export async function get(path, parameters = []) {
  const query = new URLSearchParams(Array.isArray(parameters) ? parameters : Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ''));
  let response;
  try {
    response = await fetch(`/api/${path}${query.size > 0 ? `?${query}` : ''}`, { headers: { Accept: 'application/json' } });
  } catch {
    connection.textContent = 'memopt ui does not answer';
    throw new Error('memopt ui does not answer. Is it still running?');
  }
  connection.textContent = '';
  if (response.ok)
    return response.json();
  const text = await response.text();
  let message = text || `The server answered ${response.status}.`;
  try {
    const { error } = JSON.parse(text);
    message = error.next ? `${error.message} Next: ${error.next}` : error.message;
  } catch {
    // Not everything that answers does so in JSON.
  }
  throw Object.assign(new Error(message), { status: response.status });
}

/** Does something now and again every so often while the page is looked at, one after the other; returns what ends that. A task that returns false ends itself. */
export function repeat(milliseconds, task) {
  let timer, ended = false;
  const turn = async () => {
    let more = true;
    if (!document.hidden)
      more = await task().catch(() => true);
    if (!ended && more !== false)
      timer = setTimeout(turn, milliseconds);
  };
  turn();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}
