"use strict";
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
