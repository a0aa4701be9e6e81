// Runs before the first paint, so that the page never flashes in the wrong theme.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const choice = () => { try { return localStorage.getItem("slipway-theme") || "system"; } catch { return "system"; } };
  const apply = () => {
    const chosen = choice();
    document.documentElement.dataset.theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
    for (const button of document.querySelectorAll("[data-theme-choice]"))
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
    document.dispatchEvent(new CustomEvent("slipway:theme"));
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-theme-choice]");
    if (!button) return;
    try { localStorage.setItem("slipway-theme", button.dataset.themeChoice); } catch { /* private window */ }
    apply();
  });
})();
