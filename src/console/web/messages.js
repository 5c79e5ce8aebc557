// Messages of a partition.
'use strict';

function rawOf(content) {
  if (content.hex === undefined) return new TextEncoder().encode(content.text);
  return Uint8Array.from(content.hex.match(/../g) || [], (pair) => parseInt(pair, 16));
}

function textOf(content) {
  return content.hex === undefined ? content.text : new TextDecoder().decode(rawOf(content));
}

function hexDump(raw) {
  const lines = [];
  for (let at = 0; at < raw.length; at += 16) {
    const part = [...raw.subarray(at, at + 16)];
    const hex = part.map((byte) => two(byte.toString(16)));
    const letters = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${two(at.toString(16), 6)}  ${hex.slice(0, 8).join(' ').padEnd(23)}  ${hex.slice(8).join(' ').padEnd(23)}  ${letters}`);
  }
  return lines.join('\n');
}

/** JSON laid out anew, each number and string as it was written; null: it is none. */
function laidOut(text) {
  try {
    JSON.parse(text);
  } catch (error) {
    return null;
  }
  let out = '';
  let depth = 0;
  const line = () => '\n' + '  '.repeat(depth);
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+/gu) || [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    if (token === '{' || token === '[') {
      const end = token === '{' ? '}' : ']';
      if (tokens[i + 1] === end) {
        out += token + end;
        i++;
      } else {
        depth++;
        out += token + line();
      }
    } else if (token === '}' || token === ']') {
      depth--;
      out += line() + token;
    } else if (token === ',') out += token + line();
    else if (token === ':') out += ': ';
    else out += token;
  }
  return out;
}

// Bytes that no text has.
const BINARY = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/;

/** [what it was shown as, text] of a key or value. */
function shownAs(content, how) {
  if (content === null) return ['null', null];
  const json = how === 'json' || (how === 'auto' && content.hex === undefined && /^\s*[[{]/.test(content.text)) ? laidOut(textOf(content)) : null;
  if (json !== null) return ['json', json];
  if (how === 'hex' || (how === 'auto' && (content.hex !== undefined || BINARY.test(content.text)))) return ['hex', hexDump(rawOf(content))];
  return [how === 'json' ? 'text, it is no JSON' + (content.cut ? ' as far as it is shown' : '') : 'text', textOf(content)];
}

/** On one line. */
function brief(content, how) {
  if (content === null) return el('span', { class: 'dim' }, 'null');
  if (content.bytes === 0) return el('span', { class: 'dim' }, 'empty');
  const [kind, text] = shownAs(content, how);
  if (kind === 'hex') return [...rawOf(content).subarray(0, 40)].map((byte) => two(byte.toString(16))).join(' ');
  const plain = kind === 'json' ? textOf(content) : text;
  return visible(plain.slice(0, 300).replace(/\s+/g, ' '));
}

const HOW = [['auto', 'Automatic'], ['text', 'Text'], ['json', 'JSON'], ['hex', 'Hex']];

async function viewMessages(place, topic, view) {
  const given = view.parameters;
  const state = {
    partition: Number(given.get('partition')) || 0, from: given.get('from') || 'newest', offset: given.get('offset') || '',
    time: given.get('time') || '', limit: Number(given.get('limit')) || 50, decode: given.get('decode') || 'auto',
  };
  const results = el('div', {});
  const input = (label, element) => el('label', {}, label, element);
  const choice = (id, options, value) => {
    const select = el('select', { id }, options.map(([key, text]) => el('option', { value: key }, text)));
    select.value = value;
    return select;
  };
  const partition = el('input', { id: 'partition', type: 'number', min: 0, class: 'short', value: state.partition });
  const from = choice('from', [['newest', 'Newest'], ['offset', 'From offset'], ['time', 'From time']], state.from);
  const offset = el('input', { id: 'offset', type: 'number', min: 0, class: 'short', value: state.offset });
  const time = el('input', { id: 'time', type: 'datetime-local', step: '0.001', value: state.time });
  const limit = choice('limit', [10, 50, 100, 200].map((n) => [n, String(n)]), state.limit);
  const decode = choice('decode', HOW, state.decode);
  const [offsetLabel, timeLabel] = [input('Offset', offset), input('Time (this browser’s zone)', time)];
  const arrange = () => {
    offsetLabel.hidden = from.value !== 'offset';
    timeLabel.hidden = from.value !== 'time';
  };
  from.addEventListener('change', arrange);
  arrange();
  let shown = null;
  const ask = async (position) => {
    put(results, el('p', { class: 'dim' }, 'Reading…'));
    try {
      shown = await api('messages', { topic, partition: state.partition, limit: state.limit, ...position });
      if (view.shown()) draw();
    } catch (error) {
      if (view.shown()) put(results, errorBox(error));
    }
  };
  const start = () => {
    Object.assign(state, { partition: Number(partition.value) || 0, from: from.value, offset: offset.value, time: time.value, limit: Number(limit.value) });
    view.keep({ ...state, offset: state.from === 'offset' ? state.offset : '', time: state.from === 'time' ? state.time : '' });
    const ms = new Date(state.time).getTime();
    if (state.from === 'time' && isNaN(ms)) return put(results, errorBox({ message: 'That is no time.' }));
    return ask(state.from === 'offset' ? { offset: state.offset || 0 } : state.from === 'time' ? { time_ms: Math.max(0, ms) } : {});
  };
  const draw = () => {
    const list = shown.messages;
    const first = list.length ? list[0].offset : shown.first_offset;
    const older = Math.max(shown.start_offset, first - state.limit);
    put(results,
      el('div', { class: 'pager' },
        el('button', { id: 'older', disabled: first <= shown.start_offset, onclick: () => ask({ offset: older }) }, '‹ Older'),
        el('button', { id: 'newer', disabled: shown.next_offset >= shown.end_offset, onclick: () => ask({ offset: shown.next_offset }) }, 'Newer ›'),
        el('span', { class: 'count' }, list.length ? `${number(list.length)} messages from offset ${first}` : `no messages from offset ${first}`),
        el('span', {}, `partition has ${shown.start_offset} to ${shown.end_offset}`)),
      shown.errors.map((text) => errorBox({ message: text })),
      list.length ? el('div', { class: 'panel', id: 'messages' }, list.map(oneMessage)) : note(shown.end_offset === shown.start_offset ? 'The partition is empty.' : 'There is nothing from there on.'));
  };
  const oneMessage = (message) => {
    const item = el('div', { class: 'message', 'data-offset': message.offset });
    const open = el('div', { class: 'open' });
    const button = el('button', {
      'aria-expanded': 'false',
      onclick: () => {
        const opening = !open.isConnected;
        button.setAttribute('aria-expanded', String(opening));
        if (opening) {
          details(open, message);
          item.append(open);
        } else open.remove();
      },
    },
      el('span', { class: 'mono' }, String(message.offset)), el('span', { class: 'time dim' }, moment(message.timestamp_ms)),
      el('span', { class: 'key mono' }, brief(message.key, state.decode)),
      el('span', { class: 'value mono' }, message.control ? el('span', { class: 'tag' }, 'control') : null, brief(message.value, state.decode)));
    item.append(button);
    return item;
  };
  const details = (open, message) => {
    const part = (title, content) => {
      const [kind, text] = shownAs(content, state.decode);
      const size = content === null ? '' : `, ${bytes(content.bytes)}`;
      return [el('h3', {}, `${title} (${kind}${size}${content && content.cut ? ', its beginning' : ''})`),
        text === null ? null : el('pre', { class: kind === 'hex' ? 'hex' : null }, text)];
    };
    const cut = [message.key, message.value].some((content) => content && content.cut);
    const more = async () => {
      try {
        const whole = await api('messages', { topic, partition: state.partition, offset: message.offset, limit: 1, bytes: 1 << 20 });
        const found = whole.messages.find((own) => own.offset === message.offset);
        if (found) details(open, Object.assign(message, found));
      } catch (error) {
        open.prepend(errorBox(error));
      }
    };
    put(open, part('Value', message.value), cut ? el('p', {}, el('button', { onclick: more }, 'Read up to 1 MiB of it')) : null, part('Key', message.key),
      message.headers.length ? [el('h3', {}, 'Headers'), table([
        ['Name', 'name-cell mono', (h) => visible(textOf(h.key))], ['Value', 'name-cell mono', (h) => brief(h.value, state.decode)],
      ], message.headers)] : null,
      el('h3', {}, `${message.timestamp_type} ${moment(message.timestamp_ms)}${message.transactional ? ', transactional' : ''}`));
  };
  decode.addEventListener('change', () => {
    state.decode = decode.value;
    view.keep({ ...state });
    if (shown) draw();
  });
  const form = el('form', { class: 'tools', onsubmit: (event) => { event.preventDefault(); start(); } },
    input('Partition', partition), input('Position', from), offsetLabel, timeLabel, input('At most', limit), input('Show as', decode),
    el('button', { class: 'main', id: 'show' }, 'Show'));
  put(place, crumb('#/topic/' + encodeURIComponent(topic), visible(topic)), el('h1', {}, 'Messages'), form, results);
  await start();
}
