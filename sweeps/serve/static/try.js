// Try a face: the picture goes to the server as it is, and its faces come back with percentages.
"use strict";
const model = document.getElementById("model");
const answer = document.getElementById("answer"), notes = document.getElementById("notes"), result = document.querySelector(".result"), drop = document.getElementById("drop");
const MOST_BYTES = 10 * 2 ** 20, MOST_PIXELS = 1600;
const sentence = (text) => text[0].toUpperCase() + text.slice(1);
let last = null, asked = 0;

async function about() {
  const line = document.getElementById("about"), name = model.value, began = Date.now();
  const say = (text) => { if (name === model.value) line.textContent = text; };
  say("Loading this net …");
  const timer = setInterval(() => say(`Preparing this net for its first use: ${Math.round((Date.now() - began) / 1000)} s of about half a minute; later uses start at once.`), 1000);
  try { say((await request(`/api/v1/models/about?model=${encodeURIComponent(name)}`)).sentence); } catch (error) { say(error.message); }
  clearInterval(timer);
}

// Only the answer to the latest question is shown.
async function ask(blob, whole = false) {
  last = [blob, whole];
  const mine = ++asked;
  answer.textContent = "Looking …";
  notes.textContent = "";
  try {
    if (blob.size > MOST_BYTES) throw new Error("This file is too large: at most 10 MB."); // the server would cut the connection
    const content = await request(`/api/v1/predict?model=${encodeURIComponent(model.value)}&whole=${whole}&looked=true`, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: blob });
    const picture = await createImageBitmap(blob).catch(() => null);
    if (mine === asked) show(picture, content, blob);
  } catch (error) {
    if (mine !== asked) return;
    answer.textContent = sentence(error.message);
    result.hidden = true;
  }
}

function show(picture, content, blob) {
  result.hidden = false;
  draw(picture, content);
  const [first] = content.faces;
  answer.textContent = first ? sentence(first.sentence) + (content.faces.length > 1 ? ` (face 1 of ${content.faces.length})` : "") : "No face was found. ";
  if (!first) {
    const button = document.createElement("button");
    button.textContent = "Take the picture as one face";
    button.addEventListener("click", () => ask(blob, true));
    answer.append(button);
  }
  notes.textContent = content.notes.join("; ");
  document.getElementById("faces").replaceChildren(...content.faces.map(bars));
}

function bars(face, place) {
  const box = document.createElement("section"), title = document.createElement("h3");
  box.className = "face";
  title.textContent = `Face ${place + 1}: ${face.sentence}`;
  box.append(title);
  if (face.looked) {
    const figure = document.createElement("figure"), picture = document.createElement("img"), caption = document.createElement("figcaption");
    picture.src = face.looked;
    picture.alt = `Face ${place + 1} as the net receives it, orange where it looked for ${face.expression.toLowerCase()}`;
    picture.width = picture.height = 96;
    caption.textContent = "The net's input; orange is where it looked (Grad-CAM)";
    figure.append(picture, caption);
    box.append(figure);
  }
  for (const [name, share] of Object.entries(face.probabilities)) {
    const row = document.createElement("div"), label = document.createElement("span"), track = document.createElement("div"), fill = document.createElement("div"), number = document.createElement("span");
    row.className = name === face.expression ? "bar top" : "bar";
    label.textContent = name;
    track.className = "track"; fill.className = "fill"; number.className = "n";
    fill.style.width = `${100 * share}%`;
    number.textContent = `${Math.round(100 * share)} %`;
    track.append(fill);
    row.append(label, track, number);
    box.append(row);
  }
  return box;
}

function draw(picture, { width, height, faces }) {
  const photo = document.getElementById("photo"), pen = photo.getContext("2d"), scale = Math.min(1, MOST_PIXELS / Math.max(width, height)); // phones refuse larger canvases
  photo.width = Math.ceil(width * scale); photo.height = Math.ceil(height * scale);
  if (picture) pen.drawImage(picture, 0, 0, photo.width, photo.height);
  const size = Math.max(photo.width, photo.height), high = Math.max(12, size / 35);
  pen.lineWidth = Math.max(2, size / 250);
  pen.font = `600 ${high}px system-ui, sans-serif`;
  faces.forEach(({ box }, place) => {
    if (!box) return;
    const [left, top, wide, deep] = [box.left, box.top, box.width, box.height].map((length) => length * scale), label = String(place + 1);
    pen.strokeStyle = pen.fillStyle = "#d55e00";
    pen.strokeRect(left, top, wide, deep);
    pen.fillRect(left - pen.lineWidth / 2, top - high * 1.3, pen.measureText(label).width + high * 0.6, high * 1.3);
    pen.fillStyle = "#fff";
    pen.fillText(label, left + high * 0.3, top - high * 0.3);
  });
}

if (model) {
  model.addEventListener("change", () => { about(); if (last) ask(...last); });
  for (const id of ["file", "camera"]) document.getElementById(id).addEventListener("change", (event) => { if (event.target.files[0]) ask(event.target.files[0]); event.target.value = ""; });
  for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", async () => {
    try { ask(await (await reach(`/examples/${button.dataset.example}.png`)).blob(), true); } catch (error) { answer.textContent = error.message; }
  });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); const [file] = event.dataTransfer.files; if (file) ask(file); });
  document.addEventListener("paste", (event) => { const item = [...event.clipboardData.items].find((one) => one.type.startsWith("image/")); if (item) ask(item.getAsFile()); });
  about();
}
