// `?` shows the keys, `g` and a letter goes to a page.
const help = document.getElementById("help");
let pending = 0;

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-help]");
  if (button) button.dataset.help === "open" ? help?.showModal() : help?.close();
});

document.addEventListener("keydown", (event) => {
  if (!help || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "?") { help.open || help.showModal(); return; }
  if (event.key === "g") { pending = Date.now(); return; }
  if (Date.now() - pending < 1200) {
    const row = help.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    if (row) location.assign(row.dataset.href);
  }
  pending = 0;
});
