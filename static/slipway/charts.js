// Time series of an endpoint on one shared time axis, with the marks of its rollouts.
// The page names the data ([data-charts]) and one place for each series ([data-chart]).
import { onRing } from "./live.js";

const HEIGHT = 190;
const root = document.querySelector("[data-charts]");
const plots = new Map();
const time = new Intl.DateTimeFormat(document.documentElement.lang || "en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clock = (at) => time.format(new Date(at * 1000));
let data = null, timer = 0;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return { series: [1, 2, 3, 4].map((n) => value(`--series-${n}`)), line: value("--line"), muted: value("--muted") };
}

/** Says which labels have room beside their line: from the right, so that of a crowd the last one speaks. */
function labelled(seen, gap) {
  let next = Infinity;
  for (const mark of [...seen].reverse()) {
    mark.shown = mark.x + mark.width + gap <= next;
    next = mark.x;
  }
  return seen;
}

/** Dashed lines where a rollout moved traffic, drawn behind the series; their labels stand above the plot. */
function marks(look) {
  return { hooks: { drawAxes: [(plot) => {
    const { ctx, bbox } = plot, scale = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = look.muted;
    ctx.setLineDash([4 * scale, 4 * scale]);
    ctx.textAlign = "left";
    ctx.font = `${11 * scale}px system-ui`;
    const seen = data.marks
      .map((mark) => ({ label: mark.label, x: Math.round(plot.valToPos(mark.at, "x", true)), width: ctx.measureText(mark.label).width }))
      .filter((mark) => mark.x >= bbox.left && mark.x <= bbox.left + bbox.width);
    for (const mark of labelled(seen, 4 * scale)) {
      ctx.beginPath();
      ctx.moveTo(mark.x, bbox.top - 12 * scale);
      ctx.lineTo(mark.x, bbox.top + bbox.height);
      ctx.stroke();
      if (mark.shown) ctx.fillText(mark.label, mark.x + 4 * scale, bbox.top - 4 * scale);
    }
    ctx.restore();
  }] } };
}

/** The time under the cursor, with the marks that the cursor is on. */
function moment(plot, at) {
  if (!at) return "–";
  const x = plot.valToPos(at, "x");
  const near = data.marks.filter((mark) => Math.abs(plot.valToPos(mark.at, "x") - x) < 6);
  return [clock(at), ...near.map((mark) => `${clock(mark.at)} → ${mark.label}`)].join(" · ");
}

/** The series of a place: one for each deployment, or the parts of one deployment's time stacked on another. */
function lines(place) {
  const scale = Number(place.dataset.divide ?? 1);
  const over = (values) => (scale === 1 ? values : values.map((value) => (value == null ? null : value / scale)));
  if (!place.dataset.line) return data.lines.map((line) => ({ label: line.label, values: over(line[place.dataset.chart]) }));
  const line = data.lines.find((one) => String(one.deployment) === place.dataset.line), below = [];
  return place.dataset.chart.split(" ").map((name) => {
    const own = line?.[name] ?? data.times.map(() => null);
    const values = own.map((value, at) => (value == null ? null : (below[at] = (below[at] ?? 0) + value)));
    return { label: root.dataset[name], values, own };
  });
}

function options(place, look, drawn) {
  const stacked = Boolean(place.dataset.line);
  const colour = (index) => (stacked ? [look.series[0], look.series[3]] : look.series)[index % 4];
  const unit = place.dataset.unit;
  const short = (value) => Number(value.toPrecision(3));
  const show = (value) => (value == null ? "–" : `${short(value)}${unit ? ` ${unit}` : ""}`);
  const axis = { stroke: look.muted, grid: { stroke: look.line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width: place.clientWidth || 480,
    height: HEIGHT,
    padding: [16, 44, 0, 0], // room for the labels of the marks
    cursor: { sync: { key: "slipway" }, points: { size: 6 } },
    scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
    axes: [
      { ...axis, space: 60, size: 28, values: (plot, ticks) => ticks.map(clock) },
      { ...axis, size: 46, values: (plot, ticks) => ticks.map(short) },
    ],
    legend: { markers: { width: 0, fill: (plot, index) => colour(index - 1) } },
    bands: stacked ? [{ series: [2, 1], fill: `${colour(1)}55` }] : undefined,
    series: [
      { label: root.dataset.time, value: moment },
      ...drawn.map((line, index) => ({
        label: line.label,
        stroke: colour(index),
        fill: stacked && index === 0 ? `${colour(0)}55` : undefined,
        width: 2,
        spanGaps: false,
        points: { show: false },
        value: (plot, value, series, at) => show(line.own && at != null ? place.parts?.[index]?.[at] : value),
      })),
    ],
    plugins: [marks(look)],
  };
}

function draw() {
  if (!data) return;
  const look = colours();
  for (const place of root.querySelectorAll("[data-chart]")) {
    const drawn = lines(place), columns = [data.times, ...drawn.map((line) => line.values)];
    place.parts = drawn.map((line) => line.own);
    const shape = drawn.map((line) => line.label).join("|");
    const known = plots.get(place);
    if (known && known.shape === shape) { known.plot.setData(columns); continue; }
    known?.plot.destroy();
    plots.set(place, { shape, plot: new window.uPlot(options(place, look, drawn), columns, place) });
  }
}

async function read() {
  try {
    const answer = await fetch(root.dataset.charts, { headers: { Accept: "application/json" } });
    if (answer.ok) { data = await answer.json(); draw(); }
  } catch { /* the next window asks again */ }
}

function redraw() {
  for (const { plot } of plots.values()) plot.destroy();
  plots.clear();
  draw();
}

function resize() {
  for (const [place, { plot }] of plots) plot.setSize({ width: place.clientWidth, height: HEIGHT });
}

if (root) {
  read();
  onRing((topic, id) => {
    const mine = String(id) === root.dataset.endpoint && ["window", "endpoint"].includes(topic);
    if ((mine || topic === "rollout" || topic === "poll") && !timer) timer = setTimeout(() => { timer = 0; read(); }, 2000);
  });
  document.addEventListener("slipway:theme", redraw);
  new ResizeObserver(resize).observe(root);
}
