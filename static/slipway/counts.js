// Numbers in the navigation and the badge on the favicon, while jobs run or alerts fire.
import { onRing } from "./live.js";

const texts = document.getElementById("texts");
const icon = document.getElementById("favicon");
const plain = icon?.href;

function badge(counts) {
  if (!icon) return;
  if (!counts.alerts && !counts.jobs) { icon.href = plain; return; }
  const colour = counts.alerts ? "#dc2626" : "#2563eb";
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><g fill="#0f766e"><path d="M1 9 19 4v6H1z" opacity=".85"/><path d="M1 11h18v4a2 2 0 0 1-2 2H3a2 2 0 0 1-2-2z"/></g><circle cx="15" cy="5" r="5" fill="${colour}"/></svg>`;
  icon.href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

function show(counts) {
  for (const place of document.querySelectorAll("[data-count]")) place.textContent = counts[place.dataset.count] || "";
  for (const pill of document.querySelectorAll("[data-count-pill]")) pill.hidden = !counts[pill.dataset.countPill];
  badge(counts);
}

async function read() {
  try {
    const answer = await fetch(texts.dataset.counts, { headers: { Accept: "application/json" } });
    if (answer.ok) show(await answer.json());
  } catch { /* the next ring asks again */ }
}

if (texts) {
  const value = (name) => Number(document.querySelector(`[data-count=${name}]`)?.textContent || 0);
  badge({ jobs: value("jobs"), alerts: value("alerts") });
  let timer = 0;
  onRing((topic) => {
    if (!["job", "alert", "rollout", "poll"].includes(topic)) return;
    clearTimeout(timer);
    timer = setTimeout(read, 500);
  });
}
