'use strict';
let data;
const WIDTH = 340, HEIGHT = 230, EDGE = { left: 48, right: 14, top: 24, bottom: 40 };

// The rows lie in the page as JSON, gzipped, in base 64.
async function unzipped(text) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text = '') {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function unpacked({ count, columns }) {
  const rows = Array.from({ length: count }, () => ({}));
  for (const [name, column] of Object.entries(columns)) {
    const value = Array.isArray(column) ? i => column[i]
      : column.lists ? i => column.codes[i].map(code => column.lists[code])
      : i => column.values[column.codes[i]];
    rows.forEach((row, i) => { row[name] = value(i); });
  }
  return rows;
}

const number = value => value === null || value === undefined ? '' : Number.isInteger(value) ? value.toLocaleString('en')
  : String(Number(value.toPrecision(4)));
const distinct = values => [...new Set(values)];
const words = name => name.replaceAll('_', ' ');
const inOrder = values => values.every(value => data.settings.includes(value))
  ? data.settings.filter(value => values.includes(value)) : values;
const links = keys => keys.flatMap((key, i) => {
  const link = element('a', { href: data.links[key], title: key }, String(i + 1));
  return [link, ' '];
});

// Eight colours that people with any colour vision tell apart (Okabe and Ito 2008; the yellow darker), and a
// shape beside each, so that colour is never the only difference.
const PALETTE = ['#0072b2', '#d55e00', '#009e73', '#b1478f', '#3a9bd9', '#b8860b', '#6a51a3', '#555555'];
const SHAPES = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`,
  (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`,
  (x, y, r) => `M${x},${y - 1.3 * r}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}Z`,
  (x, y, r) => `M${x},${y - 1.4 * r}L${x + 1.4 * r},${y}L${x},${y + 1.4 * r}L${x - 1.4 * r},${y}Z`,
  (x, y, r) => `M${x},${y + r}l${r},${-1.8 * r}h${-2 * r}z`,
  (x, y, r) => `M${x - r},${y - 1.5}h${r - 1.5}v${1.5 - r}h3v${r - 1.5}h${r - 1.5}v3h${1.5 - r}v${r - 1.5}h-3v${1.5 - r}h${1.5 - r}z`,
];
function colours(names) {
  return new Map(names.map((name, i) => [name, {
    paint: PALETTE[i % PALETTE.length], shape: SHAPES[i % SHAPES.length], place: i - (names.length - 1) / 2,
  }]));
}

function ticks(low, high, wanted = 6) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(each => each >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(Number(value.toPrecision(8)));
  return found;
}

// Menus for the columns in which the rows differ; `redraw` gets the rows that are chosen.
function choose(box, rows, names, redraw) {
  const menus = [];
  const matching = upTo => rows.filter(row => menus.slice(0, upTo).every(([name, menu]) => row[name] === menu.value));
  const update = () => {
    menus.forEach(([name, menu], i) => {
      const options = inOrder(distinct(matching(i).map(row => row[name]))), old = menu.value;
      menu.replaceChildren(...options.map(option => element('option', { value: option }, words(option))));
      if (options.includes(old)) menu.value = old;
      menu.parentElement.hidden = distinct(rows.map(row => row[name])).length < 2;
    });
    redraw(matching(menus.length));
  };
  for (const name of names) {
    const menu = element('select');
    menu.addEventListener('change', update);
    menus.push([name, menu]);
    box.append(element('label', {}, words(name), menu));
  }
  update();
}

function lines(figure, chart) {
  const rows = unpacked(chart.rows), place = figure.querySelector('.drawing'), hidden = new Set();
  const tip = element('div', { class: 'tip', hidden: '', role: 'status' });
  figure.append(tip);
  figure.addEventListener('mouseleave', () => { tip.hidden = true; });
  const show = (row, dot) => {
    tip.replaceChildren(
      element('strong', {}, row[chart.series]), element('br'), `${axisName(row, chart)}: ${number(row.x)}`, element('br'),
      `${words(row.metric ?? row.of)}: ${number(row.y)}`,
      ...(row.low === null ? [] : [element('br'), `95 %: ${number(row.low)} to ${number(row.high)}`]),
      ...(row.keys.length ? [element('br'), 'cells: ', ...links(row.keys)] : []));
    tip.hidden = false;
    const frame = figure.getBoundingClientRect(), at = dot.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(at.left - frame.left + 12, frame.width - tip.offsetWidth))}px`;
    tip.style.top = `${at.top - frame.top + 12}px`;
  };
  choose(figure.querySelector('.controls'), rows, chart.choices, chosen => {
    tip.hidden = true;
    const redraw = () => {
      const names = distinct(chosen.map(row => row[chart.series])), colour = colours(names);
      const panels = inOrder(distinct(chosen.map(row => row[chart.panel])));
      const grid = element('div', { class: 'panels' });
      for (const panel of panels) {
        const all = chosen.filter(row => row[chart.panel] === panel);
        grid.append(plot(words(panel), all, chart, hidden, colour, show));
      }
      const legend = element('div', { class: 'legend' }, ...names.map(name => {
        const button = element('button', { type: 'button', 'aria-pressed': String(!hidden.has(name)) },
          symbol(colour.get(name)), name);
        button.addEventListener('click', () => {
          hidden.has(name) ? hidden.delete(name) : hidden.add(name);
          redraw();
        });
        return button;
      }));
      place.replaceChildren(grid, legend);
    };
    redraw();
  });
}

function symbol({ paint, shape }) {
  const svg = drawn('svg', { viewBox: '0 0 14 14', width: 14, height: 14, 'aria-hidden': 'true' });
  svg.append(drawn('path', { d: shape(7, 7, 4.5), style: `fill:${paint}` }));
  return svg;
}

const axisName = (row, chart) => chart.x ?? words(row.along);

function plot(title, all, chart, hidden, colour, show) {
  const rows = all.filter(row => !hidden.has(row[chart.series]));
  const svg = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'group', 'aria-label': title });
  const ref = all[0].ref ?? null;
  const ys = all.flatMap(row => [row.y, row.low, row.high]).concat(ref).filter(value => value !== null);
  const xs = distinct(all.map(row => row.x)).sort((a, b) => a - b);
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.05 || Math.abs(ys[0]) * 0.05 || 1;
  const low = Math.min(...ys) - pad, high = Math.max(...ys) + pad;
  const scale = chart.log ? Math.log : value => value;
  const first = scale(xs[0]), span = scale(xs.at(-1)) - first || 1;
  const inner = 12;
  const x = value => EDGE.left + inner + (WIDTH - EDGE.left - EDGE.right - 2 * inner) * (xs.length > 1 ? (scale(value) - first) / span : 0.5);
  const y = value => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - (value - low) / (high - low));
  svg.append(drawn('text', { class: 'title', x: EDGE.left, y: 12 }, title));
  for (const tick of ticks(low, high)) {
    svg.append(drawn('line', { class: 'grid', x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(tick), y2: y(tick) }));
    svg.append(drawn('text', { x: EDGE.left - 5, y: y(tick) + 4, 'text-anchor': 'end' }, number(tick)));
  }
  let last = -Infinity;
  const measured = distinct(all.filter(row => row.curve !== 1).map(row => row.x)).sort((a, b) => a - b);
  for (const value of measured) {
    if (x(value) - last < 34) continue;
    last = x(value);
    svg.append(drawn('text', { x: last, y: HEIGHT - EDGE.bottom + 15, 'text-anchor': 'middle' }, number(value)));
  }
  const middle = (EDGE.left + WIDTH - EDGE.right) / 2;
  svg.append(drawn('text', { x: middle, y: HEIGHT - 6, 'text-anchor': 'middle' }, axisName(all[0], chart)));
  if (ref !== null) svg.append(drawn('line', { class: 'ref', x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(ref), y2: y(ref) }));
  // Series stand beside each other at the same size, so that no point hides another.
  const step = Math.min(7, 24 / Math.max(1, colour.size));
  for (const [name, { paint, shape, place }] of colour) {
    const part = rows.filter(row => row[chart.series] === name).sort((a, b) => a.x - b.x);
    const fitted = part.some(row => row.curve === 1), aside = fitted ? 0 : place * step;
    const at = value => x(value) + aside;
    const curve = fitted ? part.filter(row => row.curve === 1) : part;
    const line = curve.map(row => `${at(row.x)},${y(row.y)}`);
    const band = curve.filter(row => row.low !== null);
    const edge = [...band.map(row => [row.x, row.high]), ...band.toReversed().map(row => [row.x, row.low])];
    svg.append(drawn('polygon', { class: 'band', style: `fill:${paint}`, points: edge.map(([a, b]) => `${at(a)},${y(b)}`).join(' ') }));
    svg.append(drawn('polyline', { class: 'line', style: `stroke:${paint}`, points: line.join(' ') }));
    for (const row of part.filter(each => each.curve !== 1)) {
      const dot = drawn('path', { class: 'dot', tabindex: 0, d: shape(at(row.x), y(row.y), 4), style: `fill:${paint}`,
        role: 'button', 'aria-label': `${name}, ${axisName(row, chart)} ${number(row.x)}: ${number(row.y)}` });
      for (const event of ['mouseenter', 'focus', 'click']) dot.addEventListener(event, () => show(row, dot));
      svg.append(dot);
    }
  }
  return svg;
}

function heat(figure, chart) {
  const rows = unpacked(chart.rows), place = figure.querySelector('.drawing'), controls = figure.querySelector('.controls');
  const bases = [...(rows.every(row => row.untrained !== null) ? ['untrained'] : []), ...chart.columns];
  const against = element('select', {}, ...bases.map(base => element('option', { value: base }, base)));
  const orders = { 'Joshi class': row => row.joshi_class ?? 9, name: row => row.name, script: row => row.script,
    'first column': row => -(row[chart.columns[0]] - row[against.value]),
    'last column': row => -(row[chart.columns.at(-1)] - row[against.value]) };
  const order = element('select', {}, ...Object.keys(orders).map(name => element('option', { value: name }, name)));
  choose(controls, rows, chart.choices, chosen => {
    const redraw = () => {
      const columns = chart.columns.filter(column => column !== against.value), key = orders[order.value];
      const sorted = [...chosen].sort((a, b) => (key(a) > key(b)) - (key(a) < key(b)) || (a.name > b.name) - (a.name < b.name));
      const gain = (row, column) => 100 * (row[column] - row[against.value]);
      const limit = Math.max(...sorted.flatMap(row => columns.map(column => Math.abs(gain(row, column)))), 1e-9);
      const head = ['language', 'class', 'script', ...columns].map(name => element('th', { scope: 'col' }, name));
      const body = sorted.map(row => element('tr', {},
        element('th', { scope: 'row' }, row.name), element('td', {}, number(row.joshi_class) || '–'), element('td', {}, row.script),
        ...columns.map(column => {
          const value = gain(row, column), strength = (0.75 * Math.abs(value) / limit).toFixed(3);
          return element('td', {
            style: `background:rgba(${value > 0 ? '40,110,190' : '200,60,50'},${strength})`,
            title: `${row.name}, ${column}: mAP ${number(row[column])}; ${against.value}: ${number(row[against.value])}`,
          }, (value > 0 ? '+' : '') + value.toFixed(1));
        })));
      place.replaceChildren(element('div', { class: 'table heat', tabindex: 0, role: 'region', 'aria-label': chart.title },
        element('table', {}, element('caption', {}, `Points of mAP against ${against.value}`),
        element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...body))));
    };
    against.onchange = redraw;
    order.onchange = redraw;
    redraw();
  });
  controls.append(element('label', {}, 'compared with', against), element('label', {}, 'sorted by', order));
}

function table(section) {
  const packed = data.tables[section.dataset.table], rows = unpacked(packed);
  const columns = Object.keys(packed.columns).filter(name => name !== 'keys'), linked = 'keys' in packed.columns;
  const heads = [...section.querySelectorAll('th')].slice(0, columns.length), body = section.querySelector('tbody');
  const all = section.querySelector('input[type=checkbox]'), filter = section.querySelector('input[type=search]');
  const main = packed.main.map(i => rows[i]);
  let sorted = null, down = false;
  const fill = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = all?.checked || wanted.length ? rows : main;
    if (wanted.length) {
      shown = shown.filter(row => {
        const text = columns.map(column => row[column] ?? '').join(' ').toLowerCase();
        return wanted.every(word => text.includes(word));
      });
    }
    if (sorted !== null) {
      const sign = down ? -1 : 1, empty = value => value === null || value === undefined;
      shown = [...shown].sort((a, b) => {
        const [one, two] = [a[sorted], b[sorted]];
        if (empty(one) || empty(two)) return empty(one) - empty(two);
        if (typeof one === 'number' && typeof two === 'number') return sign * (one - two);
        return sign * String(one).localeCompare(String(two), 'en', { numeric: true });
      });
    }
    body.replaceChildren(...shown.map(row => element('tr', {},
      ...columns.map(column => typeof row[column] === 'number'
        ? element('td', { class: 'number' }, number(row[column])) : element('td', {}, String(row[column] ?? ''))),
      ...(linked ? [element('td', { class: 'cells' }, ...links(row.keys ?? []))] : []))));
  };
  heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
    down = sorted === columns[i] && !down;
    sorted = columns[i];
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    fill();
  }));
  all?.addEventListener('change', fill);
  filter.addEventListener('input', fill);
}

unzipped(document.getElementById('data').textContent).then(found => {
  data = found;
  document.querySelectorAll('[data-chart]').forEach(figure => {
    const chart = data.charts[Number(figure.dataset.chart)];
    ({ lines, heat })[chart.kind](figure, chart);
  });
  document.querySelectorAll('[data-table]').forEach(table);
  document.documentElement.dataset.ready = 'yes';
});
