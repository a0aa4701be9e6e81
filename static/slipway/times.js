// Keeps relative times current; the server wrote the first ones.
const texts = document.getElementById("texts")?.dataset;
const units = [[86400, "unitD"], [3600, "unitH"], [60, "unitM"], [1, "unitS"]];

function span(seconds) {
  const [size, name] = units.find(([size]) => seconds >= size);
  return texts[name].replace("%", Math.floor(seconds / size));
}

function words(seconds) {
  return seconds < 5 ? texts.agoNow : texts.ago.replace("%", span(seconds));
}

export function refreshTimes() {
  if (!texts) return;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    if (seconds >= 0) time.textContent = words(seconds);
  }
}

// data-lasting: the server's count of seconds when it wrote the element. It goes on from when the page got it, so
// the reader's clock does not matter.
const seen = new WeakMap();

function refreshLasting() {
  for (const one of document.querySelectorAll("[data-lasting]")) {
    if (seen.get(one)?.told !== one.dataset.lasting) seen.set(one, { told: one.dataset.lasting, at: performance.now() });
    one.textContent = span(Math.max(1, Number(one.dataset.lasting) + (performance.now() - seen.get(one).at) / 1000));
  }
}

setInterval(refreshTimes, 10_000);
if (texts) setInterval(refreshLasting, 1000);
