"use strict";
const arrangers = new Map();
for (const table of document.querySelectorAll("table[data-filter]")) {
  const body = table.tBodies[0], first = parseInt(table.dataset.first ?? "0"), total = body.rows.length;
  if (total < 4) continue;
  const bar = document.createElement("div"), input = document.createElement("input");
  const count = document.createElement("span"), more = document.createElement("button");
  bar.className = "filters"; count.className = "soft";
  input.type = "search"; input.placeholder = `filter ${table.dataset.filter}`; input.ariaLabel = input.placeholder;
  more.type = "button";
  bar.append(input, count, more);
  table.closest(".scroll").before(bar);
  let all = !first || total <= first;
  const arrange = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0, shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase(), fits = words.every(word => text.includes(word));
      found += fits;
      row.hidden = !fits || !(all || found <= first);
      shown += !row.hidden;
    }
    count.textContent = shown === total ? "" : `${shown} of ${total} shown`;
    more.hidden = all || found <= first;
    more.textContent = `show all ${found}`;
  };
  input.addEventListener("input", arrange);
  more.addEventListener("click", () => { all = true; arrange(); });
  addEventListener("beforeprint", () => { all = true; arrange(); });
  arrangers.set(table, arrange);
  arrange();
}
for (const heading of document.querySelectorAll("th[data-sort]")) {
  heading.tabIndex = 0;
  const sort = () => {
    const table = heading.closest("table"), body = table.tBodies[0];
    const column = [...heading.parentNode.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = (a, b) => (heading.dataset.sort === "number" ? (parseFloat(a) || 0) - (parseFloat(b) || 0) : a.localeCompare(b));
    const rows = [...body.rows].sort((a, b) => order(key(a), key(b)));
    body.append(...(down ? rows.reverse() : rows));
    arrangers.get(table)?.();
  };
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
const filters = [...document.querySelectorAll("select[data-filter]")];
const faces = [...document.querySelectorAll(".face")];
const show = () => {
  let left = 0;
  for (const face of faces) {
    face.hidden = !filters.every(filter => !filter.value || face.dataset[filter.dataset.filter].split(" | ").includes(filter.value));
    left += !face.hidden;
  }
  const count = document.querySelector("#faces-shown");
  if (count) count.textContent = `${left} of ${faces.length} shown`;
};
for (const filter of filters) filter.addEventListener("change", show);
if (filters.length) show();
