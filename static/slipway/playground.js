// The playground: tabs of inputs, one request, the server's answer in its place. JSON is what all tabs come to.
import { check } from "./play-check.js";
import { image } from "./play-image.js";
import { table } from "./play-table.js";
import { text } from "./play-text.js";
import { Refused, say } from "./play-words.js";

const LONGEST = 4e6, SHOWN = 200_000;
const form = document.getElementById("play"), result = document.getElementById("play-result");
const tabs = [...document.querySelectorAll("#play-tabs [role=tab]")];
const area = form?.elements.body, send = form?.querySelector("[type=submit]"), anyway = document.getElementById("play-anyway");
const wrong = document.getElementById("play-wrong");
const description = JSON.parse(form?.dataset.description ?? "{}");
const makers = {};
let kind = "json", changed = true, sending = false;

function complain(texts) {
  wrong.replaceChildren(...texts.map((line) => {
    const place = document.createElement("div");
    place.className = "wrong";
    place.textContent = line;
    return place;
  }));
}

/** The request as JSON text, from the tab that is open. */
function composed() {
  return kind === "json" ? area.value : JSON.stringify(makers[kind].request());
}

function open(wanted, focus) {
  if (wanted === "json" && kind !== "json" && changed) {
    try {
      const made = composed();
      if (made.length <= SHOWN) { area.value = made; changed = false; }
    } catch (refusal) { if (!(refusal instanceof Refused)) throw refusal; }
  }
  kind = wanted;
  complain([]);
  anyway.hidden = true;
  for (const tab of tabs) {
    const here = tab.dataset.kind === kind;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !here;
    if (here && focus) tab.focus();
  }
}

function choose(wanted) {
  open(wanted, true);
  const address = new URL(location.href);
  address.searchParams.set("input", wanted);
  history.replaceState(null, "", address);
}

function keys(event) {
  const at = tabs.indexOf(event.target.closest("[role=tab]"));
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  choose(tabs.at(to % tabs.length).dataset.kind);
}

/** The text to send, or undefined after saying what is wrong. */
function checked(forced) {
  complain([]);
  anyway.hidden = true;
  try {
    const body = composed();
    if (body.length > LONGEST) throw new Refused(say("tooLarge", { size: (body.length / 1e6).toFixed(1) }));
    if (kind !== "json" || forced) return body;
    const found = check(body, description.inputs);
    if (!found.wrong.length) return body;
    complain(found.wrong);
    anyway.hidden = found.hopeless || send.disabled;
  } catch (refusal) {
    if (!(refusal instanceof Refused)) throw refusal;
    complain(refusal.texts);
  }
}

function busy(yes) {
  sending = yes;
  send.disabled = yes;
  send.textContent = say(yes ? "sending" : "send");
  result.classList.toggle("is-waiting", yes);
  result.setAttribute("aria-busy", String(yes));
}

async function submit(event) {
  event.preventDefault();
  if (sending) return;
  const body = checked(event.submitter === anyway);
  if (body === undefined) return;
  const data = new FormData(form);
  data.set("body", body);
  busy(true);
  try {
    const answer = await fetch(location.pathname, { method: "POST", body: data, headers: { "HX-Request": "true" } });
    if (answer.redirected) complain([say("signedOut")]);
    else if (!answer.ok && answer.status !== 422) complain([say("broken", { why: answer.status })]);
    else {
      result.innerHTML = await answer.text();
      document.getElementById("play-status").textContent = result.querySelector(".meta, .wrong")?.textContent.trim() ?? "";
      if (result.getBoundingClientRect().top > innerHeight - 120) result.scrollIntoView({ block: "start" });
    }
  } catch (error) {
    complain([say("broken", { why: error.message })]);
  } finally {
    busy(false);
  }
}

function save() {
  const body = checked(true);
  if (body === undefined) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([body], { type: "application/json" }));
  link.download = "request.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

if (form) {
  if (description.table) makers.table = table(description.table, description.inputs, form.dataset.rows);
  if (description.image) makers.image = image(description.image, description.inputs[0]);
  if (description.text) makers.text = text(description.text, description.inputs[0]);
  document.getElementById("play-tabs").hidden = tabs.length < 2;
  document.getElementById("play-save").hidden = false;
  document.getElementById("play-save").addEventListener("click", save);
  document.getElementById("play-tabs").addEventListener("click", (event) => { const tab = event.target.closest("[role=tab]"); if (tab) choose(tab.dataset.kind); });
  document.getElementById("play-tabs").addEventListener("keydown", keys);
  form.addEventListener("input", (event) => { if (event.target !== area) changed = true; });
  form.addEventListener("submit", submit);
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !send.disabled) form.requestSubmit(send); });
  open(form.dataset.kind, false);
}
