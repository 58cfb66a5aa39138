// Try a face: the picture goes to the server as it is, and its faces come back with percentages.
"use strict";
const model = document.getElementById("model");
const answer = document.getElementById("answer"), result = document.querySelector(".result"), drop = document.getElementById("drop");
let last = null;
const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

async function about() {
  const line = document.getElementById("about"), asked = model.value;
  const began = Date.now(), tell = () => { if (asked === model.value) line.textContent = `Preparing this net for its first use: ${Math.round((Date.now() - began) / 1000)} s of about half a minute; later uses start at once.`; };
  line.textContent = "Loading this net …";
  const timer = setInterval(tell, 1000);
  const response = await fetch(`/api/v1/models/about?model=${encodeURIComponent(asked)}`);
  const content = await response.json();
  clearInterval(timer);
  if (asked === model.value) line.textContent = response.ok ? content.sentence : content.detail;
}

async function ask(blob, whole = false) {
  last = blob;
  answer.textContent = "Looking …";
  const response = await fetch(`/api/v1/predict?model=${encodeURIComponent(model.value)}&whole=${whole}&looked=true`, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: blob });
  const content = await response.json();
  if (!response.ok) { answer.textContent = content.detail; result.hidden = true; return; }
  result.hidden = false;
  await draw(blob, content);
  if (!content.faces.length) {
    answer.textContent = "No face was found. ";
    const button = document.createElement("button");
    button.textContent = "Take the picture as one face";
    button.addEventListener("click", () => ask(blob, true));
    answer.append(button);
  } else {
    const [first] = content.faces;
    answer.textContent = first.sentence[0].toUpperCase() + first.sentence.slice(1) + (content.faces.length > 1 ? ` (face 1 of ${content.faces.length})` : "");
  }
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

async function draw(blob, content) {
  const picture = await createImageBitmap(blob), photo = document.getElementById("photo"), pen = photo.getContext("2d");
  photo.width = content.width; photo.height = content.height;
  pen.drawImage(picture, 0, 0, content.width, content.height);
  const size = Math.max(content.width, content.height);
  pen.lineWidth = Math.max(2, size / 250);
  pen.font = `600 ${Math.max(12, size / 35)}px system-ui, sans-serif`;
  content.faces.forEach(({ box }, place) => {
    if (!box) return;
    pen.strokeStyle = pen.fillStyle = "#d55e00";
    pen.strokeRect(box.left, box.top, box.width, box.height);
    const high = Math.max(12, size / 35) * 1.3;
    pen.fillRect(box.left - pen.lineWidth / 2, box.top - high, high * 1.1, high);
    pen.fillStyle = "#fff";
    pen.fillText(String(place + 1), box.left + high * 0.25, box.top - high * 0.25);
  });
}

if (model) {
  model.addEventListener("change", () => { about(); if (last) ask(last); });
  for (const id of ["file", "camera"]) document.getElementById(id).addEventListener("change", (event) => { if (event.target.files[0]) ask(event.target.files[0]); event.target.value = ""; });
  for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", async () => ask(await (await fetch(`/examples/${button.dataset.example}.png`)).blob(), true));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); const [file] = event.dataTransfer.files; if (file) ask(file); });
  document.addEventListener("paste", (event) => { const item = [...event.clipboardData.items].find((one) => one.type.startsWith("image/")); if (item) ask(item.getAsFile()); });
  about();
}
