// Ctrl-K: search pages, models, versions, endpoints and jobs on the server; recent ones without a query.
const dialog = document.getElementById("palette");
const input = dialog?.querySelector("input");
const list = dialog?.querySelector("ul");
const RECENT = "slipway-recent";
let rows = [], chosen = 0, timer = 0, asked = 0;

const recent = () => { try { return JSON.parse(localStorage.getItem(RECENT)) ?? []; } catch { return []; } };

function remember(row) {
  try {
    localStorage.setItem(RECENT, JSON.stringify([row, ...recent().filter((one) => one.url !== row.url)].slice(0, 6)));
  } catch { /* private window */ }
}

function show(found) {
  rows = found;
  chosen = 0;
  list.replaceChildren(...rows.map((row, index) => {
    const line = document.createElement("li");
    line.id = `palette-${index}`;
    line.setAttribute("role", "option");
    const label = document.createElement("span");
    label.textContent = row.label;
    const hint = document.createElement("span");
    hint.className = "muted";
    hint.textContent = row.hint;
    line.append(label, hint);
    line.addEventListener("click", () => go(index));
    return line;
  }));
  if (!rows.length) {
    const line = document.createElement("li");
    line.setAttribute("role", "option");
    line.setAttribute("aria-disabled", "true");
    line.className = "muted";
    line.textContent = document.getElementById("texts").dataset.nothing;
    list.append(line);
  }
  mark();
}

function mark() {
  [...list.children].forEach((line, index) => line.setAttribute("aria-selected", String(index === chosen && rows.length > 0)));
  if (rows.length) {
    input.setAttribute("aria-activedescendant", `palette-${chosen}`);
    list.children[chosen].scrollIntoView({ block: "nearest" });
  } else input.removeAttribute("aria-activedescendant");
}

function go(index) {
  if (!rows[index]) return;
  remember(rows[index]);
  location.assign(rows[index].url);
}

async function search() {
  const text = input.value.trim(), mine = ++asked;
  const answer = await fetch(`${dialog.dataset.url}?q=${encodeURIComponent(text)}`, { headers: { Accept: "application/json" } });
  if (!answer.ok || mine !== asked) return;
  const { results } = await answer.json();
  show(text ? results : [...recent(), ...results.filter((row) => !recent().some((one) => one.url === row.url))]);
}

function open() {
  if (dialog.open) return;
  input.value = "";
  dialog.showModal();
  input.focus();
  search();
}

if (dialog) {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); open(); }
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-palette=open]")) open();
    else if (event.target === dialog) dialog.close();
  });
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 120); });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && rows.length) { event.preventDefault(); chosen = (chosen + step + rows.length) % rows.length; mark(); }
    if (event.key === "Enter") { event.preventDefault(); go(chosen); }
    if (event.key === "Escape" && !event.isComposing) { event.preventDefault(); dialog.close(); } // a search field would only empty itself
  });
}
