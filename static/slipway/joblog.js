// The live log: asks for the lines after its cursor when one is rung in, and follows the end while it is in view.
import { onRing } from "./live.js";

const log = document.getElementById("log");
const filter = document.getElementById("log-filter");
let reading = false, again = false;

const last = () => log.lastElementChild?.dataset.line ?? 0;
const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;

function sift() {
  const text = filter.value.trim().toLowerCase();
  for (const line of log.children) line.hidden = Boolean(text) && !line.textContent.toLowerCase().includes(text);
}

async function read() {
  if (reading) { again = true; return; }
  reading = true;
  try {
    const answer = await fetch(`${log.dataset.url}?after=${last()}`);
    if (!answer.ok) return;
    const follow = atEnd();
    log.insertAdjacentHTML("beforeend", await answer.text());
    if (log.childElementCount) document.getElementById("log-empty")?.remove();
    sift();
    if (follow) log.scrollTop = log.scrollHeight;
  } finally {
    reading = false;
    if (again) { again = false; read(); }
  }
}

if (log) {
  let timer = 0;
  onRing((topic, id) => {
    if (topic !== "poll" && !(["log", "job"].includes(topic) && String(id) === log.dataset.job)) return;
    clearTimeout(timer);
    timer = setTimeout(read, 200);
  });
  filter.addEventListener("input", sift);
  if (location.hash) document.querySelector(`${location.hash}`)?.scrollIntoView({ block: "center" });
  else log.scrollTop = log.scrollHeight;
}
