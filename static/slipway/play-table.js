// A grid of rows × features: typed, pasted from a spreadsheet, or loaded from the version's data.
import { Refused, say, tensor, valueOf } from "./play-words.js";

const MOST_ROWS = 100, MOST_CELLS = 20000, NAMED = 6;
const $ = (id) => document.getElementById(id);

/** Lines of cells of what a spreadsheet puts on the clipboard, or of CSV; quoted cells may hold separators. */
export function cellsOf(text) {
  const separator = text.includes("\t") ? "\t" : text.includes(";") ? ";" : ",";
  const rows = [[]];
  let cell = "", quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[at + 1] === '"') { cell += '"'; at += 1; } else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === separator || sign === "\n") {
      rows.at(-1).push(cell);
      cell = "";
      if (sign === "\n") rows.push([]);
    } else if (sign !== "\r") cell += sign;
  }
  if (cell !== "" || rows.at(-1).length) rows.at(-1).push(cell);
  return rows.filter((row) => row.length);
}

export function table(spec, inputs, url) {
  const grid = $("grid"), head = grid.tHead, body = grid.tBodies[0];
  const columns = spec.columns, fixed = spec.rows;
  const most = Math.max(1, Math.min(MOST_ROWS, Math.floor(MOST_CELLS / columns.length)));
  const blank = (column) => ({ BYTES: "", BOOL: "false" }[column.datatype] ?? "0");
  const mixed = new Set(columns.map((column) => column.datatype)).size > 1;
  let untouched = true;

  function header() {
    const line = document.createElement("tr");
    const cell = (text, hint) => {
      const place = document.createElement("th");
      place.scope = "col";
      place.textContent = text;
      if (hint) place.title = hint;
      line.append(place);
      return place;
    };
    cell("").innerHTML = "<span class=\"visually-hidden\"></span>";
    line.firstChild.firstChild.textContent = say("row");
    for (const column of columns) cell(mixed ? `${column.name} · ${column.datatype}` : column.name, column.datatype);
    if (!fixed) line.append(document.createElement("td"));
    head.replaceChildren(line);
  }

  function number() {
    [...body.rows].forEach((line, index) => {
      line.firstChild.textContent = index + 1;
      line.querySelectorAll("input").forEach((input, place) => input.setAttribute("aria-label", say("cell", { column: columns[place].name, row: index + 1 })));
      line.querySelector("button")?.setAttribute("aria-label", say("remove", { row: index + 1 }));
    });
    $("grid-add").disabled = body.rows.length >= most;
  }

  function add(values) {
    const line = body.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    line.append(name);
    columns.forEach((column, place) => {
      const input = document.createElement("input");
      input.type = "text";
      input.autocomplete = "off";
      if (column.datatype !== "BYTES") { input.inputMode = "decimal"; input.className = "n"; }
      input.value = values?.[place] ?? blank(column);
      line.insertCell().append(input);
    });
    if (!fixed) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "linkish";
      button.textContent = "×";
      line.insertCell().append(button);
    }
  }

  function fill(rows) {
    body.replaceChildren();
    const count = fixed ?? Math.max(1, Math.min(rows.length, most));
    for (let row = 0; row < count; row += 1) add(rows[row]);
    number();
  }

  const cell = (row, place) => body.rows[row]?.querySelectorAll("input")[place];
  const spot = (input) => ({ row: [...body.rows].indexOf(input.closest("tr")), place: [...input.closest("tr").querySelectorAll("input")].indexOf(input) });

  function paste(event) {
    const input = event.target.closest("input"), text = event.clipboardData.getData("text/plain");
    if (!input || !/[\t\n;,]/.test(text.trim())) return;
    event.preventDefault();
    let rows = cellsOf(text.replace(/\n+$/, "")), { row, place } = spot(input);
    const names = columns.map((column) => column.name);
    const order = rows[0].map((name) => names.indexOf(name.trim()));
    const titled = order.filter((at) => at >= 0).length > rows[0].length / 2;
    if (titled) { rows = rows.slice(1); place = 0; }
    const room = (fixed ?? most) - row, fit = rows.slice(0, room);
    while (body.rows.length < row + fit.length) add();
    number();
    fit.forEach((line, down) => line.forEach((value, right) => {
      const aim = cell(row + down, titled ? order[right] : place + right);
      if (aim) aim.value = value.trim();
    }));
    untouched = false;
    grid.dispatchEvent(new Event("input", { bubbles: true }));
    const said = { rows: fit.length, columns: Math.max(0, ...fit.map((line) => line.length)) };
    $("grid-says").textContent = say(fit.length < rows.length ? "pastedSome" : "pasted", said);
  }

  function move(event) {
    const input = event.target.closest("input");
    if (!input || event.ctrlKey || event.metaKey) return;
    const step = { ArrowUp: -1, ArrowDown: 1, Enter: 1 }[event.key];
    if (!step) return;
    event.preventDefault(); // Enter would send the form from within the table
    const { row, place } = spot(input);
    if (event.key === "Enter" && row === body.rows.length - 1 && !fixed && body.rows.length < most) { add(); number(); }
    const aim = cell(row + step, place);
    aim?.focus();
    aim?.select();
  }

  /** The first `count` rows of the version's data; in silence when it is the page's own idea. */
  async function load(count, silent) {
    let found;
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
    } catch (error) {
      if (!silent) $("grid-says").textContent = error.message;
      return;
    }
    if (silent && !untouched) return;
    const order = columns.map((column) => found.columns.indexOf(column.name));
    const byName = order.every((at) => at >= 0);
    if (!byName && found.columns.length !== columns.length) {
      if (!silent) $("grid-says").textContent = say("misfit", found);
      return;
    }
    if (!byName && !spec.named) { columns.forEach((column, at) => { column.name = found.columns[at]; }); header(); }
    fill(found.rows.slice(0, count).map((line) => (byName ? order.map((at) => line[at]) : line)));
    $("grid-says").textContent = say("loaded", found);
    grid.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function request() {
    const lines = [...body.rows].map((line) => [...line.querySelectorAll("input")]), wrong = [];
    if (!lines.length) throw new Refused(say("noRows"));
    const values = lines.map((line, row) => line.map((input, place) => {
      input.removeAttribute("aria-invalid");
      try {
        return valueOf(input.value, columns[place].datatype, { column: columns[place].name, row: row + 1 });
      } catch (refusal) {
        input.setAttribute("aria-invalid", "true");
        if (!wrong.length) input.focus();
        wrong.push(...refusal.texts);
        return null;
      }
    }));
    if (wrong.length > NAMED) wrong.splice(NAMED, Infinity, say("moreCells", { count: wrong.length - NAMED }));
    if (wrong.length) throw new Refused(...wrong);
    const tensors = spec.style === "matrix"
      ? [tensor(inputs[0], [lines.length, columns.length], values.flat())]
      : inputs.map((input, place) => tensor(input, input.shape.length === 2 ? [lines.length, 1] : [lines.length], values.map((line) => line[place])));
    return { inputs: tensors };
  }

  header();
  fill([]);
  if (fixed) $("grid-add").hidden = true;
  grid.addEventListener("paste", paste);
  grid.addEventListener("keydown", move);
  grid.addEventListener("input", (event) => { if (event.isTrusted) untouched = false; });
  grid.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const line = button.closest("tr"), next = line.nextElementSibling ?? line.previousElementSibling;
    line.remove();
    number();
    (next?.querySelector("button") ?? $("grid-add")).focus();
  });
  $("grid-add").addEventListener("click", () => { add(); number(); untouched = false; cell(body.rows.length - 1, 0).focus(); });
  $("grid-clear").addEventListener("click", () => { untouched = false; fill([]); });
  $("grid-load")?.addEventListener("click", () => load(5, false));
  if (url) load(1, true);
  return { request };
}
