// Time series of an endpoint on one shared time axis, with the marks of its rollouts.
// The page names the data ([data-charts]) and one place for each series ([data-chart]).
import { onRing } from "./live.js";

const root = document.querySelector("[data-charts]");
const plots = new Map();
const colours = () => {
  const style = getComputedStyle(document.documentElement);
  return { series: [1, 2, 3, 4].map((n) => style.getPropertyValue(`--series-${n}`).trim()), line: style.getPropertyValue("--line").trim(), muted: style.getPropertyValue("--muted").trim() };
};
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
let data = null, timer = 0;

/** Dashed lines where a rollout moved traffic, drawn behind the series. */
function marks(look) {
  return { hooks: { drawAxes: [(plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = look.muted;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.textAlign = "left";
    ctx.font = `${11 * devicePixelRatio}px system-ui`;
    for (const mark of data.marks) {
      const x = Math.round(plot.valToPos(mark.at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(mark.label, x + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  }] } };
}

function options(place, look) {
  const unit = place.dataset.unit;
  const show = (value) => (value == null ? "–" : `${Number(value.toPrecision(3))}${unit ? ` ${unit}` : ""}`);
  const axis = { stroke: look.muted, grid: { stroke: look.line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width: place.clientWidth || 480, height: 190,
    cursor: { sync: { key: "slipway" }, points: { size: 6 } },
    scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
    axes: [{ ...axis, space: 60, values: (plot, ticks) => ticks.map(clock) }, { ...axis, size: 46, values: (plot, ticks) => ticks.map((tick) => Number(tick.toPrecision(3))) }],
    legend: { markers: { width: 0, fill: (plot, index) => look.series[(index - 1) % 4] } },
    series: [{ label: root.dataset.time, value: (plot, at) => (at ? clock(at) : "–") },
      ...data.lines.map((line, index) => ({ label: line.label, stroke: look.series[index % 4], width: 2, spanGaps: false, points: { show: false }, value: (plot, value) => show(value) }))],
    plugins: [marks(look)],
  };
}

function draw() {
  if (!data) return;
  const look = colours();
  for (const place of root.querySelectorAll("[data-chart]")) {
    const columns = [data.times, ...data.lines.map((line) => line[place.dataset.chart])];
    const shape = data.lines.map((line) => line.label).join("|");
    const known = plots.get(place);
    if (known && known.shape === shape) { known.plot.setData(columns); continue; }
    known?.plot.destroy();
    plots.set(place, { shape, plot: new window.uPlot(options(place, look), columns, place) });
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

if (root) {
  read();
  onRing((topic, id) => {
    const mine = String(id) === root.dataset.endpoint && ["window", "endpoint"].includes(topic);
    if ((mine || topic === "rollout" || topic === "poll") && !timer) timer = setTimeout(() => { timer = 0; read(); }, 2000);
  });
  document.addEventListener("slipway:theme", redraw);
  new ResizeObserver(() => { for (const [place, { plot }] of plots) plot.setSize({ width: place.clientWidth, height: 190 }); }).observe(root);
}
