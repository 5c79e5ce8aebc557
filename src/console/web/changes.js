// Changes, where the broker lets the console make any (corelane.console.admin).
'use strict';

/** The token that changes are sent with, once it is known; null: nothing is changed here. */
const admin = (async () => {
  try {
    const answer = await api('admin');
    return answer.enabled ? answer.token : null;
  } catch (error) {
    return null;
  }
})();

async function send(change) {
  const token = await admin;
  let response;
  try {
    response = await fetch('api/change', {
      method: 'POST', cache: 'no-store', credentials: 'omit', redirect: 'error',
      headers: { 'Content-Type': 'application/json', 'X-Corelane-Token': token }, body: JSON.stringify(change),
    });
  } catch (error) {
    throw new Error('The broker does not answer. The change may have been made.');
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch (error) {
    // The status has to do.
  }
  if (!response.ok) throw new Error(answer.error || `${response.status} ${response.statusText}`);
  return answer;
}

const field = (label, input) => el('label', {}, label, input);
const box = (name, attributes = {}) => el('input', { name, autocomplete: 'off', spellcheck: 'false', ...attributes });

/**
 * A button that opens a form. `fields` are made anew each time it opens; `change` makes of their values what is sent, or throws what
 * is wrong; `done` is called once it is made.
 */
function dialog(text, { id, title, fields, act, change, done, danger }) {
  const place = el('div', { class: 'change', id });
  const close = () => put(place, opener);
  const opener = el('button', { type: 'button', class: danger ? 'danger' : null, onclick: () => open() }, text);
  const open = () => {
    const problem = el('div', {});
    const button = el('button', { type: 'submit', class: danger ? 'danger' : 'main' }, act);
    const form = el('form', { class: 'tools', onsubmit: async (event) => {
      event.preventDefault();
      put(problem);
      button.disabled = true;
      try {
        const answer = await send(change(Object.fromEntries(new FormData(form))));
        close();
        done(answer);
      } catch (error) {
        put(problem, errorBox(error));
        button.disabled = false;
      }
    } }, fields(), button, el('button', { type: 'button', onclick: close }, 'Cancel'));
    put(place, el('div', { class: 'note' }, el('strong', {}, title), form, problem));
    form.querySelector('input, select')?.focus();
  };
  close();
  return place;
}

/** What a form has as a whole number; null where it has nothing. */
function wholeNumber(text, what) {
  if (text.trim() === '') return null;
  if (!/^-?\d{1,15}$/.test(text.trim())) throw new Error(`${what} must be a whole number.`);
  return Number(text);
}

/** Puts what may be changed into `place`, where anything may. */
async function changes(place, ...make) {
  if (await admin) put(place, make.map((one) => one()));
}

const createTopic = (done) => dialog('Create a topic', {
  id: 'create-topic', title: 'A new topic', act: 'Create', done,
  fields: () => [
    field('Name', box('topic', { required: true, maxlength: 249 })),
    field('Partitions', box('partitions', { class: 'short', inputmode: 'numeric', placeholder: 'default' })),
    field('Replicas', box('replicas', { class: 'short', inputmode: 'numeric', placeholder: 'default' })),
    field('Options', box('options', { placeholder: 'retention.ms=86400000 cleanup.policy=compact' })),
  ],
  change: (values) => {
    const configs = {};
    for (const option of values.options.split(/\s+/).filter(Boolean)) {
      const at = option.indexOf('=');
      if (at < 1) throw new Error(`“${option}” must read OPTION=VALUE.`);
      configs[option.slice(0, at)] = option.slice(at + 1);
    }
    return {
      change: 'create_topic', topic: values.topic.trim(), configs,
      partitions: wholeNumber(values.partitions, 'Partitions'), replication_factor: wholeNumber(values.replicas, 'Replicas'),
    };
  },
});

const addPartitions = (topic, count, done) => dialog('Add partitions', {
  id: 'add-partitions', title: 'More partitions: records of a key go to another one from then on, and there are never fewer again', act: 'Add', done,
  fields: () => [field('Partitions in all', box('partitions', { class: 'short', required: true, inputmode: 'numeric', value: String(count()) }))],
  change: (values) => ({ change: 'add_partitions', topic, partitions: wholeNumber(values.partitions, 'Partitions') }),
});

const alterTopic = (topic, done) => dialog('Set an option', {
  id: 'alter-topic', title: 'An option of this topic', act: 'Set', done,
  fields: () => [
    field('Option', box('option', { required: true, placeholder: 'retention.ms' })),
    field('Value (none: as the broker has it)', box('value')),
  ],
  change: (values) => ({ change: 'alter_topic', topic, option: values.option.trim(), value: values.value === '' ? null : values.value }),
});

const deleteTopic = (topic, done) => dialog('Delete the topic', {
  id: 'delete-topic', title: 'The topic and all of its records go, for ever', act: 'Delete', danger: true, done,
  fields: () => [field('Its name once more', box('topic', { required: true }))],
  change: (values) => {
    if (values.topic !== topic) throw new Error('That is not the name of this topic.');
    return { change: 'delete_topic', topic };
  },
});

const resetOffsets = (group, topics, done) => dialog('Move the group', {
  id: 'reset-offsets', title: 'Where the group goes on in all partitions of a topic that it has read; it must have no members', act: 'Move', danger: true, done,
  fields: () => {
    const offset = box('offset', { class: 'short', inputmode: 'numeric', disabled: true });
    const time = box('time', { type: 'datetime-local', step: '1', disabled: true });
    const to = el('select', { name: 'to', onchange: () => { offset.disabled = to.value !== 'offset'; time.disabled = to.value !== 'time'; } },
      [['earliest', 'the beginning'], ['latest', 'the end'], ['offset', 'an offset'], ['time', 'a time']].map(([value, text]) => el('option', { value }, text)));
    return [
      field('Topic', el('select', { name: 'topic' }, topics().map((topic) => el('option', { value: topic }, visible(topic))))),
      field('To', to), field('Offset', offset), field('Time', time),
    ];
  },
  change: (values) => {
    const change = { change: 'reset_offsets', group, topic: values.topic, to: values.to };
    if (values.to === 'offset') {
      const offset = wholeNumber(values.offset, 'The offset');
      if (offset === null || offset < 0) throw new Error('Which offset?');
      change.to = { offset };
    }
    if (values.to === 'time') {
      const at = new Date(values.time).getTime();
      if (!Number.isFinite(at) || at < 0) throw new Error('Which time?');
      change.to = { time_ms: at };
    }
    return change;
  },
});
