// Numbers for people. What is not known is a dash.

export const NOTHING = '–';

const known = (value) => value !== null && value !== undefined;
const two = (number) => String(number).padStart(2, '0');

const WHOLE = new Intl.NumberFormat('en');
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

export const count = (value) => (known(value) ? WHOLE.format(value) : NOTHING);

/** A share from 0 to 1. */
export const percent = (share) => (known(share) ? `${Math.round(share * 100)} %` : NOTHING);

/** Milliseconds, with about three digits. */
export function duration(ms) {
  if (!known(ms)) return NOTHING;
  if (ms < 10 && ms > 0) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${two(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

export function bytes(value) {
  if (!known(value)) return NOTHING;
  const mebibytes = value / 2 ** 20;
  if (mebibytes < 1000) return `${Math.round(mebibytes)} MiB`;
  return `${(mebibytes / 1024).toFixed(1)} GiB`;
}

/** The time of day of milliseconds since 1970. */
export const clock = (ms) => CLOCK.format(ms);

/** The words of an identifier such as `create_failed`. */
export const words = (identifier) => identifier.replaceAll('_', ' ');
