// Copy buttons that say "copied".
const texts = document.getElementById("texts");

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // plain HTTP has no clipboard API
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await copyText(button.dataset.copy);
  const before = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = texts?.dataset.copied ?? "copied";
  setTimeout(() => { button.textContent = before; }, 1500);
});
