// What the settings of a sweep do: importances as bars, and parallel coordinates; asked for anew as the sweep changes.
"use strict";
let asked = null, found = null;

async function askSettings({ driver, digest: { updated_ms: updated } }) {
  const now = Date.now(), driven = driver != null, isRecent = driven && now - asked?.at < 60_000; // an answer takes seconds of a core
  if (asked?.driven === driven && (asked.updated === updated || isRecent)) return;
  asked = { driven, updated, at: now };
  try { found = await request(`${base}/settings`); } catch (error) { asked = null; put("settings-line", error.message); return; }
  showImportances();
  drawParallel();
}

function showImportances() {
  const { settings, trials: points, importances, least_trials: least } = found, rows = Object.entries(importances);
  document.getElementById("settings-known").replaceChildren(...settings.map(({ name }) => { const option = document.createElement("option"); option.value = `${name}=`; return option; }));
  document.getElementById("parallel-box").hidden = !settings.length || !points.length;
  if (!settings.length || !points.length) put("settings-line", "No setting has been searched yet.");
  else if (!rows.length) put("settings-line", `Importances need ${least} trials that are done and differ.`);
  else put("settings-line", "Share of the accuracy's variance that each setting explains (fANOVA), with 90 % bootstrap interval:");
  document.getElementById("importances").replaceChildren(...rows.map(([name, [value, low, high]]) => {
    const row = document.createElement("div"), label = document.createElement("span"), track = document.createElement("div"), fill = document.createElement("div"), number = document.createElement("span");
    row.className = "bar wide";
    label.textContent = name;
    track.className = "track"; fill.className = "fill"; number.className = "n";
    fill.style.width = `${100 * value}%`;
    number.textContent = `${Math.round(100 * value)} % (${Math.round(100 * low)} to ${Math.round(100 * high)})`;
    track.append(fill);
    row.append(label, track, number);
    return row;
  }));
}

function drawParallel() {
  if (!found?.settings.length || !found.trials.length) return;
  const element = document.getElementById("parallel"), values = found.trials.map((one) => one.value), low = Math.min(...values), high = Math.max(...values);
  const axes = [...found.settings, { name: "accuracy", ticks: [[0, percent(low)], [1, percent(high)]] }];
  element.style.minWidth = `${axes.length * 5}rem`;
  const { pen, width, height } = canvas("parallel"), top = 14, bottom = 44, left = 16, right = 64;
  const x = (place) => left + (place / Math.max(1, axes.length - 1)) * (width - left - right), y = (share) => height - bottom - share * (height - top - bottom);
  const rank = (value) => (high > low ? (value - low) / (high - low) : 0.5), poor = colour("--soft"), good = colour("--bad");
  for (const { value, places } of [...found.trials].reverse()) {
    pen.strokeStyle = rank(value) > 0.8 ? good : poor;
    pen.globalAlpha = 0.15 + 0.75 * rank(value) ** 2;
    pen.lineWidth = value === high ? 2.5 : 1.2;
    pen.beginPath();
    let open = false;
    [...places, rank(value)].forEach((share, place) => { if (share == null) { open = false; return; } if (open) pen.lineTo(x(place), y(share)); else pen.moveTo(x(place), y(share)); open = true; });
    pen.stroke();
  }
  pen.globalAlpha = 1;
  axes.forEach(({ name: title, log, ticks }, place) => {
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x(place), y(0)); pen.lineTo(x(place), y(1)); pen.stroke();
    pen.fillStyle = colour("--ink");
    for (const [share, text] of ticks) {
      const wide = pen.measureText(text).width;
      pen.fillStyle = colour("--panel"); pen.globalAlpha = 0.8; pen.fillRect(x(place) + 3, y(share) - 8, wide + 3, 15); pen.globalAlpha = 1;
      pen.fillStyle = colour("--ink"); pen.fillText(text, x(place) + 4, y(share) + 4);
    }
    pen.fillStyle = colour("--soft");
    pen.fillText(title.split(".").pop() + (log ? " (log)" : ""), x(place), height - (place % 2 ? 8 : 24), (2 * (width - left)) / axes.length);
  });
}

window.addEventListener("summary", (event) => askSettings(event.detail));
window.addEventListener("resize", drawParallel);
