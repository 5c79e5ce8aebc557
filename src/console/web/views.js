// The console's views, and which one is shown.
'use strict';

const KEPT_SAMPLES = 150;

// ---- samples of the broker's counters, taken all the time

const samples = [];
let overview = null;

const RATES = [
  ['Produced', 'produced_bytes', (v) => bytes(v) + '/s'],
  ['Consumed', 'consumed_bytes', (v) => bytes(v) + '/s'],
  ['Records produced', 'produced_records', (v) => short(v) + '/s'],
  ['Requests', 'requests', (v) => short(v) + '/s'],
  ['Network in', 'network_received_bytes', (v) => bytes(v) + '/s'],
  ['Network out', 'network_sent_bytes', (v) => bytes(v) + '/s'],
];

/** What `field` rose by a second, sample by sample; a counter that fell began anew. */
function rates(field) {
  const found = [];
  for (let i = 1; i < samples.length; i++) {
    const seconds = (samples[i].now_ms - samples[i - 1].now_ms) / 1000;
    if (seconds > 0) found.push(Math.max(0, samples[i][field] - samples[i - 1][field]) / seconds);
  }
  return found;
}

let sampling = null;

function sample() {
  sampling ||= takeSample().finally(() => { sampling = null; });
  return sampling;
}

async function takeSample() {
  const state = document.getElementById('state');
  try {
    const now = await api('overview');
    if (overview && overview.started_ms !== now.started_ms) samples.length = 0;
    overview = now;
    samples.push(now);
    if (samples.length > KEPT_SAMPLES) samples.shift();
    put(document.getElementById('broker'), document.createTextNode(`broker ${now.broker_id}`));
    document.title = `Corelane ${now.broker_id}`;
    put(state, now.not_ready ? document.createTextNode(now.not_ready) : null);
  } catch (error) {
    put(state, document.createTextNode(error.message));
  }
}

// ---- views: each is given its place, the rest of the address, and what tells whether it is still shown

async function viewOverview(place, path, view) {
  const top = el('div', { class: 'cards' });
  const charts = el('div', { class: 'charts' });
  const cluster = el('div', {});
  put(place, el('h1', {}, 'Overview'), top, el('h2', {}, 'Throughput of this broker'), charts, el('h2', {}, 'Cluster'), cluster);
  view.every(SAMPLE_MS, async () => {
    if (!overview) await sample();
    const now = overview;
    if (!now) return;
    const cpu = rates('cpu_seconds');
    put(top,
      card('Broker', String(now.broker_id), `version ${now.version}`),
      card('Cluster id', now.cluster_id || '–', null, true),
      card('Uptime', now.started_ms ? since((now.now_ms - now.started_ms) / 1000) : '–', now.started_ms ? 'since ' + moment(now.started_ms).slice(0, 19) : null),
      card('Shards', number(now.shards), cpu.length ? `${(100 * cpu[cpu.length - 1]).toFixed(0)} % of a CPU in use` : null),
      card('Connections', number(now.connections), `${number(now.open_files)} of ${short(now.most_open_files)} files open`),
      card('Memory', bytes(now.resident_bytes), 'resident'));
    put(charts, RATES.map(([label, field, show]) => chart(label, rates(field), show)));
  });
  view.every(SLOW_MS, async () => {
    try {
      const told = await api('cluster');
      if (!view.shown()) return;
      put(cluster,
        el('div', { class: 'cards' },
          card('Topics', number(told.topics)), card('Partitions', number(told.partitions)),
          card('Under-replicated', count(told.under_replicated_partitions, 'warn'), 'partitions'),
          card('Without a leader', count(told.offline_partitions, 'bad'), 'partitions')),
        el('h2', {}, 'Brokers'),
        table([
          ['Broker', 'id', (b) => String(b.id)],
          ['Address', 'name-cell', (b) => visible(`${b.host}:${b.port}`)],
          ['Rack', '', (b) => (b.rack ? visible(b.rack) : '–')],
          ['', '', (b) => [b.id === told.controller ? el('span', { class: 'tag' }, 'controller') : null, ' ', overview && b.id === overview.broker_id ? el('span', { class: 'tag' }, 'this one') : null]],
        ], told.brokers, { id: 'brokers' }));
    } catch (error) {
      if (view.shown()) put(cluster, errorBox(error));
    }
  });
}

/** A list with a search box, a page at a time; the address keeps both. */
function listView(place, view, { title, path, noun, rows, columns, empty, change }) {
  const state = { search: view.parameters.get('search') || '', page: Number(view.parameters.get('page')) || 0 };
  const results = el('div', { id: 'results' });
  let asked = 0;
  const load = async () => {
    const own = ++asked;
    try {
      const answer = await api(path, state);
      if (!view.shown() || own !== asked) return;
      const found = rows(answer);
      const errors = (answer.errors || []).map((text) => errorBox({ message: text }));
      const go = (page) => {
        state.page = page;
        view.keep(state);
        load();
      };
      const pages = () => (answer.matching > answer.page_size || answer.page > 0 || answer.total !== answer.matching ? pager(answer, found.length, noun, go) : el('div', { class: 'pager' }, el('span', { class: 'count' }, `${number(answer.matching)} ${noun}`)));
      put(results, errors, pages(), found.length ? table(columns, found) : note(answer.total ? `No ${noun} of that name on this page.` : empty), found.length > 20 ? pages() : null);
    } catch (error) {
      if (view.shown() && own === asked) put(results, errorBox(error));
    }
  };
  let typing;
  const box = el('input', {
    type: 'search', placeholder: 'Search by name', 'aria-label': `Search ${noun}`, value: state.search, autocomplete: 'off', spellcheck: 'false',
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        Object.assign(state, { search: box.value, page: 0 });
        view.keep(state);
        load();
      }, 150);
    },
  });
  const tools = el('div', {});
  put(place, el('h1', {}, title), el('div', { class: 'tools' }, el('label', { class: 'grow' }, box)), tools, results);
  if (change) changes(tools, () => change(load));
  view.every(SLOW_MS, load);
}

async function viewTopics(place, path, view) {
  listView(place, view, {
    title: 'Topics', path: 'topics', noun: 'topics', empty: 'There are no topics yet.', rows: (answer) => answer.topics, change: createTopic,
    columns: [
      ['Topic', 'name-cell', (t) => [topicLink(t.topic), t.internal ? [' ', el('span', { class: 'tag' }, 'internal')] : null, t.error ? [' ', el('span', { class: 'bad' }, t.error)] : null].flat()],
      ['Partitions', 'num', (t) => number(t.partitions)],
      ['Replicas', 'num wide', (t) => number(t.replication_factor)],
      ['Records', 'num', (t) => number(t.records)],
      ['Size', 'num', (t) => bytes(t.bytes)],
      ['Under-replicated', 'num wide', (t) => count(t.under_replicated_partitions, 'warn')],
      ['No leader', 'num wide', (t) => count(t.offline_partitions, 'bad')],
    ],
  });
}

async function viewTopic(place, [name, sub], view) {
  if (sub === 'messages') return viewMessages(place, name, view);
  let page = 0;
  let partitions = 0;
  const [tools, results] = [el('div', { class: 'tools changes' }), el('div', {})];
  put(place, crumb('#/topics', 'Topics'), el('h1', {}, visible(name)), tools, results);
  changes(tools, () => alterTopic(name, () => load()), () => addPartitions(name, () => partitions, () => load()),
    () => deleteTopic(name, () => { location.hash = '#/topics'; }));
  const load = async () => {
    try {
      const topic = await api('topic', { name, page });
      if (!view.shown()) return;
      partitions = topic.partition_count;
      const browse = (p) => el('a', { href: `#/topic/${encodeURIComponent(name)}/messages?partition=${p}` }, 'Messages');
      const replicas = (p) => p.replicas.map((id, i) => [i ? ', ' : '', el('span', { class: p.isr.includes(id) ? null : 'warn', title: p.isr.includes(id) ? 'in sync' : 'not in sync' }, String(id))]).flat();
      put(results,
        el('p', {}, browse(0), el('span', { class: 'dim' }, topic.topic_id ? ` · id ${topic.topic_id}` : '')),
        topic.configs.length ? [el('h2', {}, 'Options of its own'), table([['Option', 'name-cell mono', (c) => c.name], ['Value', 'name-cell mono', (c) => (c.value === null ? '–' : visible(c.value))]], topic.configs)] : null,
        el('h2', {}, 'Partitions'),
        topic.partition_count > topic.page_size ? pager(topic, topic.partitions.length, 'partitions', (to) => { page = to; load(); }) : null,
        table([
          ['Partition', 'id', (p) => String(p.partition)],
          ['Leader', 'num', (p) => (p.leader === null ? el('span', { class: 'bad' }, 'none') : String(p.leader))],
          ['Replicas', 'wide', replicas],
          ['ISR', '', (p) => el('span', { class: p.isr.length < p.replicas.length ? 'warn' : null }, p.isr.join(', '))],
          ['Start', 'num wide', (p) => number(p.start_offset)],
          ['End', 'num', (p) => number(p.end_offset)],
          ['Size', 'num', (p) => bytes(p.bytes)],
          ['', 'wide', (p) => browse(p.partition)],
        ], topic.partitions, { id: 'partitions' }));
    } catch (error) {
      if (view.shown()) put(results, errorBox(error));
    }
  };
  view.every(SLOW_MS, load);
}

async function viewGroups(place, path, view) {
  listView(place, view, {
    title: 'Groups', path: 'groups', noun: 'groups', empty: 'There are no groups yet.', rows: (answer) => answer.groups,
    columns: [
      ['Group', 'name-cell', (g) => groupLink(g.group)],
      ['State', '', (g) => g.state],
      ['Type', 'wide', (g) => g.type],
      ['Coordinator', 'num wide', (g) => String(g.coordinator)],
      ['Topics', 'num wide', (g) => number(g.topics)],
      ['Partitions', 'num wide', (g) => number(g.partitions)],
      ['Lag', 'num', (g) => [number(g.lag), g.unknown_partitions ? el('span', { class: 'warn', title: `the lag of ${g.unknown_partitions} partitions is not known` }, ' +?') : null]],
    ],
  });
}

async function viewGroup(place, [name], view) {
  let page = 0;
  let topics = [];
  const [tools, results] = [el('div', { class: 'tools changes' }), el('div', {})];
  put(place, crumb('#/groups', 'Groups'), el('h1', {}, visible(name)), tools, results);
  changes(tools, () => resetOffsets(name, () => topics, () => load()));
  const load = async () => {
    try {
      const group = await api('group', { name, page });
      if (!view.shown()) return;
      topics = [...new Set([...topics, ...group.partitions.map((p) => p.topic)])].sort();
      const host = (text) => (text ? visible(text.replace(/^\//, '')) : '–');
      put(results,
        el('div', { class: 'cards' },
          card('State', group.state), card('Lag', number(group.lag), group.unknown_partitions ? `${number(group.unknown_partitions)} partitions have none committed, or no end known` : 'records'),
          card('Members', number(group.member_count), group.assignor ? visible(group.assignor) : null),
          card('Type', group.type, group.epoch === null ? null : `epoch ${group.epoch}`), card('Coordinator', String(group.coordinator))),
        el('h2', {}, 'Members'),
        group.members.length ? table([
          ['Member', 'name-cell mono', (m) => [visible(m.member), m.instance ? el('span', { class: 'dim' }, ` (${visible(m.instance)})`) : null]],
          ['Client', 'name-cell', (m) => visible(m.client_id)], ['Host', 'wide', (m) => host(m.host)], ['Partitions', 'num', (m) => number(m.partitions)],
        ], group.members, { id: 'members' }) : note('The group has no members at present.'),
        el('h2', {}, 'Offsets'),
        group.partition_count > group.page_size ? pager(group, group.partitions.length, 'partitions', (to) => { page = to; load(); }) : null,
        group.partitions.length ? table([
          ['Topic', 'name-cell', (p) => topicLink(p.topic)], ['Partition', 'num', (p) => String(p.partition)],
          ['Committed', 'num', (p) => number(p.committed_offset)], ['End', 'num', (p) => number(p.end_offset)],
          ['Lag', 'num', (p) => (p.error ? el('span', { class: 'warn', title: p.error }, '?') : number(p.lag))],
          ['Client', 'wide name-cell', (p) => (p.client_id === null ? '–' : visible(p.client_id))], ['Host', 'wide', (p) => host(p.host)],
        ], group.partitions, { id: 'offsets' }) : note('Nothing is committed, and no partition is assigned.'));
    } catch (error) {
      if (view.shown()) put(results, errorBox(error));
    }
  };
  view.every(SLOW_MS / 2, load);
}

// ---- latency

/** Counts of `now` without those of `before`: [[upper µs, count]]. */
function difference(now, before) {
  const old = new Map(before ? before.buckets : []);
  return now.buckets.map(([upper, n]) => [upper, n - (old.get(upper) || 0)]).filter(([, n]) => n > 0);
}

function quantile(buckets, share) {
  const all = buckets.reduce((sum, [, n]) => sum + n, 0);
  let left = share * all;
  for (const [upper, n] of buckets) {
    left -= n;
    if (left <= 1e-9 * all) return upper;
  }
  return buckets.length ? buckets[buckets.length - 1][0] : null;
}

/** Durations by size, four bars a doubling. */
function histogram(buckets, width) {
  const place = (upper) => Math.floor(4 * Math.log2(Math.max(upper, 1)) - 1e-6);
  const bars = new Map();
  for (const [upper, n] of buckets) bars.set(place(upper), (bars.get(place(upper)) || 0) + n);
  const keys = [...bars.keys()];
  const [low, high] = [Math.min(...keys) - 2, Math.max(...keys) + 3];
  const most = Math.max(...bars.values());
  const height = 140;
  const x = (key) => ((key - low) / (high - low)) * width;
  const drawn = [...bars].map(([key, n]) => svg('rect', {
    x: x(key).toFixed(1), width: Math.max(1, x(key + 1) - x(key) - 1).toFixed(1),
    y: (height - Math.max(1, (n / most) * (height - 8))).toFixed(1), height: Math.max(1, (n / most) * (height - 8)).toFixed(1),
  }, svg('title', {}, `up to ${span(2 ** ((key + 1) / 4))}: ${number(n)}`)));
  const marks = [];
  const step = 4 * Math.max(1, Math.ceil(((high - low) / 4 / width) * 90));
  for (let key = Math.ceil(low / step) * step; key < high - 1; key += step) {
    if (x(key) > 15 && x(key) < width - 30) marks.push(svg('text', { x: x(key).toFixed(1), y: height + 18, 'text-anchor': 'middle' }, span(2 ** (key / 4))));
  }
  return svg('svg', { viewBox: `0 0 ${width} ${height + 26}`, role: 'img', 'aria-label': 'Durations' },
    svg('line', { x1: 0, x2: width, y1: height, y2: height }), drawn, marks);
}

async function viewLatency(place, path, view) {
  const taken = [];
  let chosen = null;
  const window = el('select', { id: 'window', onchange: () => draw() }, [['10', 'Last 10 s'], ['60', 'Last minute'], ['all', 'Since the start']].map(([value, text]) => el('option', { value }, text)));
  const picture = el('div', {});
  const rows = el('div', {});
  put(place, el('h1', {}, 'Latency'), el('p', { class: 'dim' }, 'From a request’s last byte until its batches were appended, were acknowledged, and its answer was sent. A fetch’s time includes its wait for records. Within 6 %.'),
    el('div', { class: 'tools' }, el('label', {}, 'Requests of the', window)), picture, rows);
  const key = (series) => series.api + ' ' + series.stage;
  const draw = () => {
    const now = taken[taken.length - 1];
    if (!now) return;
    const reach = window.value === 'all' ? null : now.now_ms - 1000 * Number(window.value) - SAMPLE_MS / 2;
    const before = reach === null ? null : taken.find((each) => each.now_ms >= reach);
    const seconds = before ? (now.now_ms - before.now_ms) / 1000 : (now.now_ms - (overview ? overview.started_ms : now.now_ms)) / 1000;
    const found = now.series.map((series) => {
      const buckets = difference(series, before && before !== now ? before.series.find((old) => key(old) === key(series)) : null);
      return { key: key(series), api: series.api, stage: series.stage, buckets, count: buckets.reduce((sum, [, n]) => sum + n, 0) };
    }).filter((series) => series.count > 0 && (before !== now));
    found.sort((a, b) => b.count - a.count);
    if (!found.length) return put(picture, note(taken.length > 1 || window.value === 'all' ? 'No requests in this time.' : 'Measuring…')), put(rows);
    const one = found.find((series) => series.key === chosen) || found.find((series) => series.api === 'Produce' && series.stage === 'acknowledged') || found[0];
    put(picture, el('div', { class: 'card histogram' }, el('div', { class: 'label' }, `${one.api}, ${one.stage}: ${number(one.count)} requests`), histogram(one.buckets, Math.max(300, picture.clientWidth - 26))));
    const at = (share) => (series) => span(quantile(series.buckets, share));
    const pick = (series) => el('a', { href: '#/latency', 'aria-current': series === one ? 'true' : null, onclick: (event) => { event.preventDefault(); chosen = series.key; draw(); } }, series.api);
    put(rows, el('p', {}), table([
      ['API', '', pick], ['Until', '', (s) => s.stage], ['Per second', 'num wide', (s) => short(s.count / Math.max(seconds, 0.001))],
      ['p50', 'num', at(0.5)], ['p99', 'num', at(0.99)], ['p99.9', 'num wide', at(0.999)], ['Longest', 'num wide', at(1)],
    ], found, { id: 'latencies' }));
  };
  view.every(SAMPLE_MS, async () => {
    try {
      const now = await api('latency');
      if (!view.shown()) return;
      taken.push(now);
      if (taken.length > 40) taken.shift();
      draw();
    } catch (error) {
      if (view.shown()) put(rows, errorBox(error));
    }
  });
}

// ---- shards and storage

const MEMORY = {
  arena: 'Arena (not yet written)', tail_cache: 'Tail cache', cache: 'Copies for consumers that lag', cold_cache: 'Cold cache', receive: 'Requests', response: 'Answers', groups: 'Groups', producers: 'Producers',
};

async function viewShards(place, path, view) {
  let before = null;
  const rows = el('div', {});
  put(place, el('h1', {}, 'Shards'), rows);
  view.every(SAMPLE_MS, async () => {
    try {
      const now = await api('shards');
      if (!view.shown()) return;
      const seconds = before ? (now.now_ms - before.now_ms) / 1000 : 0;
      const rise = (shard, field) => (seconds > 0 && before.shards[shard.shard] ? Math.max(0, shard[field] - before.shards[shard.shard][field]) / seconds : null);
      const hits = (hit, miss) => (hit + miss ? `${((100 * hit) / (hit + miss)).toFixed(1)} %` : '–');
      const busy = (s) => {
        const share = rise(s, 'busy_seconds');
        return share === null ? '–' : [meter(share, 1), `${(100 * share).toFixed(0)} %`];
      };
      put(rows,
        table([
          ['Shard', 'id', (s) => String(s.shard)], ['Busy', '', busy], ['In', 'num', (s) => (seconds ? bytes(rise(s, 'received_bytes')) + '/s' : '–')],
          ['Out', 'num', (s) => (seconds ? bytes(rise(s, 'sent_bytes')) + '/s' : '–')], ['Connections', 'num wide', (s) => number(s.connections)],
          ['Disk I/O', 'num wide', (s) => number(s.io_in_flight)], ['Messages', 'num wide', (s) => number(s.waiting_messages)],
          ['Stalls', 'num wide', (s) => count(s.stalls, 'bad')], ['Segments', 'num wide', (s) => number(s.segments)],
          ['Not synced', 'num wide', (s) => bytes(s.unsynced_bytes)], ['Disk failures', 'num wide', (s) => count(s.storage_failures, 'bad')],
        ], now.shards, { id: 'shards' }),
        el('h2', {}, 'Memory and caches'),
        table([
          ['Shard', 'id', (m) => String(m.shard)], ['Memory', '', (m) => MEMORY[m.memory] || m.memory], ['In use', '', (m) => [meter(m.used_bytes, m.capacity_bytes), bytes(m.used_bytes)]],
          ['Bound', 'num wide', (m) => bytes(m.capacity_bytes)], ['Hits', 'num', (m) => m.hits],
        ], now.shards.flatMap((s) => s.memory.map((m) => ({ ...m, shard: s.shard, hits: m.memory === 'tail_cache' ? hits(s.tail_hits, s.tail_misses) : m.memory === 'cold_cache' ? hits(s.cold_hits, s.cold_misses) : '' }))), { id: 'memory' }));
      before = now;
    } catch (error) {
      if (view.shown()) put(rows, errorBox(error));
    }
  });
}

async function viewStorage(place, path, view) {
  const rows = el('div', {});
  put(place, el('h1', {}, 'Log directories'), rows);
  view.every(SLOW_MS, async () => {
    try {
      const answer = await api('log-dirs');
      if (!view.shown()) return;
      put(rows, answer.brokers.filter((b) => b.error).map((b) => errorBox({ message: `Broker ${b.broker}: ${b.error}` })), table([
        ['Broker', 'id', (d) => String(d.broker)], ['Directory', 'name-cell mono', (d) => [visible(d.path), d.error ? el('div', { class: 'bad' }, d.error) : d.cordoned ? el('div', { class: 'warn' }, 'cordoned: gets no new partitions') : null]],
        ['Partitions', 'num wide', (d) => number(d.partitions)], ['Logs', 'num', (d) => bytes(d.log_bytes)],
        ['File system', '', (d) => (d.total_bytes === null ? '–' : [meter(d.total_bytes - d.usable_bytes, d.total_bytes), `${bytes(d.usable_bytes)} free of ${bytes(d.total_bytes)}`])],
      ], answer.brokers.flatMap((b) => b.log_dirs.map((d) => ({ ...d, broker: b.broker }))), { id: 'dirs' }));
    } catch (error) {
      if (view.shown()) put(rows, errorBox(error));
    }
  });
}

// ---- slow requests

async function viewSlow(place, path, view) {
  const rows = el('div', {});
  put(place, el('h1', {}, 'Slow requests'), rows);
  view.every(SLOW_MS / 2, async () => {
    try {
      const answer = await api('slow-requests');
      if (!view.shown()) return;
      const all = (answer.minutes || []).flatMap((minute) => minute.requests);
      const about = (r) => (r.topic === null ? '–' : [topicLink(r.topic), `-${r.partition}`, r.partitions > 1 ? el('span', { class: 'dim' }, ` and ${number(r.partitions - 1)} more`) : null]);
      const stages = (r) => {
        const bar = el('div', { class: 'stages', title: r.stages.map((s) => `${s.stage} ${s.ms} ms`).join(', ') }, r.stages.map(() => el('span')));
        r.stages.forEach((s, i) => { bar.children[i].style.width = `${(100 * s.ms) / Math.max(r.total_ms, 0.001)}%`; });
        return bar;
      };
      put(rows, el('p', { class: 'dim' }, `The slowest requests of the last ${number((answer.minutes || []).length)} minutes, newest minute first: at most ${number(answer.requests_per_minute_and_shard)} of each minute and shard.`),
        all.length ? table([
          ['Sent at', 'mono', (r) => moment(r.sent_at_ms)], ['API', '', (r) => r.api], ['Took', 'num', (r) => span(1000 * r.slow_ms)],
          ['Stages', 'wide', stages], ['Waited for', '', (r) => visible(r.in_words || r.waited_for)], ['About', 'name-cell wide', about],
          ['Client', 'name-cell wide', (r) => [r.client_id === null ? '–' : visible(r.client_id), r.peer ? el('span', { class: 'dim' }, ' ' + visible(r.peer)) : null]],
        ], all.slice(0, 200), { id: 'slow' }) : note('No request was worth a place in these minutes.'));
    } catch (error) {
      if (view.shown()) put(rows, error.status === 404 ? note('This broker keeps no list of slow requests.') : errorBox(error));
    }
  });
}

// ---- which view

const VIEWS = {
  '': viewOverview, topics: viewTopics, topic: viewTopic, groups: viewGroups, group: viewGroup, latency: viewLatency, shards: viewShards, storage: viewStorage, slow: viewSlow,
};
const TABS = [['', 'Overview'], ['topics', 'Topics'], ['groups', 'Groups'], ['latency', 'Latency'], ['shards', 'Shards'], ['storage', 'Storage'], ['slow', 'Slow requests']];

let current = null;

function decodeName(part) {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    return part;
  }
}

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const [name, ...rest] = path.split('/').map(decodeName);
  if (current) current.timers.forEach(clearInterval);
  const view = {
    timers: [], parameters: new URLSearchParams(query || ''),
    shown: () => current === view,
    /** Now, and every so often while the page is seen. */
    every(ms, work) {
      work();
      view.timers.push(setInterval(() => { if (!document.hidden) work(); }, ms));
    },
    /** Keeps a view's state in the address, without a step in the history. */
    keep(state) {
      const given = Object.entries(state).filter(([, value]) => value !== '' && value !== 0);
      const kept = given.length ? '?' + new URLSearchParams(given) : '';
      history.replaceState(null, '', '#/' + path + kept);
    },
  };
  current = view;
  const tab = { topic: 'topics', group: 'groups' }[name] || name;
  put(document.getElementById('nav'), TABS.map(([key, text]) => el('a', { href: '#/' + key, 'aria-current': key === tab ? 'page' : null }, text)));
  document.querySelector('nav a[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  const place = document.getElementById('main');
  if (!Object.hasOwn(VIEWS, name)) return put(place, note('There is no such view.'));
  VIEWS[name](place, rest, view);
  scrollTo(0, 0);
}

addEventListener('hashchange', route);
sample();
setInterval(() => { if (!document.hidden) sample(); }, SAMPLE_MS);
route();
