// Parts of the console's views. Whatever comes from /api is put into the page as text.
'use strict';

/** Time between two samples of what is shown live, and of what changes less. */
const SAMPLE_MS = 2000;
const SLOW_MS = 10000;

// ---- elements

/** An element with attributes, and children that are elements or become text. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function put(place, ...children) {
  place.replaceChildren(...children.flat().filter(Boolean));
}

// ---- words

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

function number(value) {
  return value === null || value === undefined ? '–' : whole.format(value);
}

/** 1234567 as 1.23 M. */
function short(value) {
  if (value === null || value === undefined) return '–';
  let unit = '';
  for (const next of ['k', 'M', 'G', 'T']) {
    if (value < 1000) break;
    value /= 1000;
    unit = ' ' + next;
  }
  return value.toFixed(unit === '' ? (value < 10 && value % 1 ? 1 : 0) : value < 10 ? 2 : value < 100 ? 1 : 0) + unit;
}

function bytes(value) {
  if (value === null || value === undefined) return '–';
  let unit = 'B';
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return (unit === 'B' ? whole.format(value) : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)) + ' ' + unit;
}

function span(us) {
  if (us < 1000) return us.toFixed(us < 10 ? 1 : 0) + ' µs';
  if (us < 1e6) return (us / 1000).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0) + ' ms';
  return (us / 1e6).toFixed(us < 1e7 ? 2 : 1) + ' s';
}

function since(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

const two = (n, width = 2) => String(n).padStart(width, '0');

/** In this browser's time zone. */
function moment(ms) {
  if (ms === null || ms === undefined) return '–';
  const at = new Date(ms);
  if (isNaN(at)) return String(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
    `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
}

// Characters that would not be seen, or would turn the text around them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** A name as it can be told from any other. */
function visible(name) {
  if (name === '') return '(empty)';
  return name.replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// ---- asking

async function api(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== '');
  const query = given.length ? '?' + new URLSearchParams(given) : '';
  let response;
  try {
    response = await fetch('api/' + path + query, { cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (error) {
    throw new Error('The broker does not answer.');
  }
  if (response.ok) return response.json();
  let why = `${response.status} ${response.statusText}`;
  try {
    why = (await response.json()).error || why;
  } catch (error) {
    // The status has to do.
  }
  throw Object.assign(new Error(why), { status: response.status });
}

// ---- parts of views

const errorBox = (error) => el('p', { class: 'error', role: 'alert' }, error.message || String(error));
const note = (...text) => el('p', { class: 'note' }, ...text);

function card(label, value, more, long) {
  return el('div', { class: 'card' }, el('div', { class: 'label' }, label),
    el('div', { class: long ? 'value long' : 'value' }, value), more ? el('div', { class: 'more' }, more) : null);
}

/** `columns`: [head, class, cell of a row]. */
function table(columns, rows, attributes = {}) {
  const head = columns.map(([text, kind]) => el('th', { class: kind, scope: 'col' }, text));
  const body = rows.map((row) => el('tr', {}, columns.map(([text, kind, cell]) => el('td', { class: kind, 'data-head': text || null }, cell(row)))));
  return el('div', { class: 'panel', ...attributes }, el('table', {}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, body)));
}

function meter(used, all) {
  const share = all > 0 ? Math.min(1, used / all) : 0;
  const level = el('span', { class: share > 0.9 ? 'high' : null });
  level.style.width = (100 * share).toFixed(1) + '%';
  return el('span', { class: 'meter', title: (100 * share).toFixed(1) + ' %' }, level);
}

function pager(answer, shown, noun, go) {
  const total = answer.matching ?? answer.partition_count;
  const first = answer.page * answer.page_size;
  const of = answer.total !== undefined && answer.total !== total ? ` (of ${number(answer.total)})` : '';
  const text = shown ? `${number(first + 1)}–${number(first + shown)} of ${number(total)} ${noun}${of}` : `0 of ${number(total)} ${noun}${of}`;
  return el('div', { class: 'pager' },
    el('button', { disabled: answer.page === 0, onclick: () => go(answer.page - 1), 'aria-label': 'Previous page' }, '‹'),
    el('span', { class: 'count' }, text),
    el('button', { disabled: first + shown >= total, onclick: () => go(answer.page + 1), 'aria-label': 'Next page' }, '›'));
}

const topicLink = (name) => el('a', { href: '#/topic/' + encodeURIComponent(name) }, visible(name));
const groupLink = (name) => el('a', { href: '#/group/' + encodeURIComponent(name) }, visible(name));
const crumb = (href, text) => el('p', { class: 'crumb' }, el('a', { href }, '‹ ' + text));
const count = (n, bad) => (n ? el('span', { class: bad }, number(n)) : '0');

/** A line over time: values from left to right, their largest at the top. */
function chart(label, values, show) {
  const most = Math.max(...values, 0);
  const x = (i) => (values.length > 1 ? (300 * i) / (values.length - 1) : 0).toFixed(1);
  const y = (value) => (54 - (most ? (50 * value) / most : 0)).toFixed(1);
  const line = values.map((value, i) => `${x(i)},${y(value)}`).join(' ');
  const drawing = values.length > 1
    ? [svg('polygon', { class: 'area', points: `0,56 ${line} 300,56` }), svg('polyline', { class: 'line', points: line })]
    : [];
  return el('div', { class: 'card chart' }, el('div', { class: 'label' }, label),
    el('div', { class: 'value' }, values.length ? show(values[values.length - 1]) : '–'),
    svg('svg', { viewBox: '0 0 300 56', preserveAspectRatio: 'none', role: 'img', 'aria-label': label }, drawing),
    el('div', { class: 'ends' }, el('span', {}, `last ${Math.round((values.length * SAMPLE_MS) / 1000)} s`), el('span', {}, 'max ' + show(most))));
}
