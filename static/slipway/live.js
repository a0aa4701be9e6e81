// The live stream: hears "job 12 changed" and lets the parts of the page that show it read themselves again.
// An element says what it shows with data-live="job:12 rollout"; what is finished says nothing.
const LISTENERS = new Set();
const SLOW = { window: 2000 };
let source = null, deaf = false;

/** Calls back with (topic, id) of every ring; topic "poll" when the stream is down and it is time to look. */
export function onRing(callback) { LISTENERS.add(callback); }

function wants(element, topic, id) {
  if (topic === "poll") return true;
  return element.dataset.live.split(/\s+/).some((word) => word === topic || word === `${topic}:${id}`);
}

function fresh(element, known) {
  for (const row of element.querySelectorAll("[data-row]"))
    if (!known.has(row.dataset.row)) {
      row.classList.add("is-new");
      setTimeout(() => row.classList.remove("is-new"), 2000);
    }
}

async function refresh(element) {
  if (!element.isConnected) return;
  if (document.querySelector(":popover-open.confirm")) { setTimeout(refresh, 1000, element); return; } // not under a person's hands
  const known = new Set([...element.querySelectorAll("[data-row]")].map((row) => row.dataset.row));
  const unfolded = [...element.querySelectorAll("details")].map((one) => one.open);
  const selector = `#${CSS.escape(element.id)}`;
  await window.htmx.ajax("GET", element.dataset.liveUrl || location.pathname + location.search, {
    source: element, target: element, select: selector, swap: "outerMorph ignoreTitle:true",
  });
  const now = document.querySelector(selector);
  if (!now) return;
  [...now.querySelectorAll("details")].forEach((one, index) => { one.open = unfolded[index] ?? one.open; });
  fresh(now, known);
}

function schedule(element, topic) {
  if (element.liveTimer) return;
  element.liveTimer = setTimeout(() => { element.liveTimer = 0; refresh(element); }, SLOW[topic] ?? 300);
}

function ring(topic, id) {
  for (const element of document.querySelectorAll("[data-live]")) if (wants(element, topic, id)) schedule(element, topic);
  for (const callback of LISTENERS) callback(topic, id);
}

function connect(url) {
  source = new EventSource(url);
  source.addEventListener("message", (event) => { const { topic, id } = JSON.parse(event.data); ring(topic, id); });
  source.addEventListener("doorbell", (event) => { deaf = event.data === "away"; });
}

export function start() {
  const url = document.getElementById("texts")?.dataset.events;
  if (!url) return;
  connect(url);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) { connect(url); ring("poll"); } });
  setInterval(() => { if (!document.hidden && (deaf || source.readyState !== EventSource.OPEN)) ring("poll"); }, 5000);
}
