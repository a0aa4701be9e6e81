// Keeps relative times current; the server wrote the first ones.
const texts = document.getElementById("texts")?.dataset;
const units = [[86400, "unitD"], [3600, "unitH"], [60, "unitM"], [1, "unitS"]];

function words(seconds) {
  if (seconds < 5) return texts.agoNow;
  const [size, name] = units.find(([size]) => seconds >= size);
  return texts.ago.replace("%", texts[name].replace("%", Math.floor(seconds / size)));
}

export function refreshTimes() {
  if (!texts) return;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    if (seconds >= 0) time.textContent = words(seconds);
  }
}

setInterval(refreshTimes, 10_000);
