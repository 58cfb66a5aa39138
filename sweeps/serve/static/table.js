// A table of the page sorts by a click on a header and is filtered by the search field that names it.
"use strict";
for (const field of document.querySelectorAll("[data-filters]")) {
  const rows = document.getElementById(field.dataset.filters).tBodies[0].rows;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
}
for (const header of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = header.textContent;
  header.replaceChildren(button);
  button.addEventListener("click", () => {
    const table = header.closest("table"), body = table.tBodies[0], place = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[place].dataset.value, text = (row) => row.cells[place].textContent.trim();
    const compare = (a, b) => (value(a) == null ? text(a).localeCompare(text(b), undefined, { numeric: true }) : value(a) - value(b));
    body.append(...[...body.rows].sort((a, b) => compare(a, b) * (down ? -1 : 1)));
  });
}
