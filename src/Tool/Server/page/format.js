// Values as people read them.

export function number(value) {
  if (value === null || value === undefined)
    return '–';
  value = Number(value);                                     // the server spells "NaN" and "Infinity" as texts
  if (Number.isNaN(value))
    return 'NaN';
  if (!Number.isFinite(value))
    return value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-3))
    return value.toExponential(2).replace('e+', 'e').replace('-', '−').replace('e-', 'e−');
  if (Number.isInteger(value))
    return value.toLocaleString('en').replace('-', '−');
  return value.toLocaleString('en', { maximumSignificantDigits: size >= 1000 ? 6 : 4, minimumSignificantDigits: size >= 1000 ? 1 : 4 }).replace('-', '−');
}

export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(Number(value)))
    return '–';
  const size = Number(value);
  return size >= 2 ** 30 ? `${(size / 2 ** 30).toFixed(2)} GiB` : size >= 2 ** 20 ? `${(size / 2 ** 20).toFixed(1)} MiB` : size >= 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${size} B`;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0)
    return '–';
  if (seconds < 60)
    return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, '0')} s`
    : minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min` : `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}

/** "12 min ago", or the day when that is long past. */
export function ago(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  return seconds < 5 ? 'now' : seconds < 90 ? `${Math.round(seconds)} s ago` : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : seconds < 86400 ? `${Math.round(seconds / 3600)} h ago` : day(time);
}

const two = value => String(value).padStart(2, '0');
export const day = time => (t => `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`)(new Date(time));
export const clock = time => (t => `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`)(new Date(time));
export const moment = time => `${day(time)} ${clock(time)}`;

/** The value of a metric by what its name says that it is. */
export const metric = (name, value) => name === 'memory_bytes' ? bytes(value) : name === 'tokens_per_second' ? number(Math.round(value)) : number(value);
