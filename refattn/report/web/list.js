// Of the pages of `refattn explain`: tables that sort by the column whose heading is pressed, and a filter of rows.
"use strict";

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? (cell.dataset.value === "" ? null : Number(cell.dataset.value)) : cell.textContent;
  };
  const sign = descending ? -1 : 1;
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  });
  body.append(...rows.map(([, row]) => row));
  for (const [n, head] of [...table.tHead.rows[0].cells].entries()) {
    if (n === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function makeSortable(table) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numbers = head.classList.contains("number");
      sortTable(table, column, before ? before === "ascending" : numbers); // the largest numbers first
    });
  }
}

function makeFilter(field, table, counter) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    counter.textContent = `${shown} shown`;
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
const field = document.getElementById("filter");
if (field) makeFilter(field, document.querySelector("table.sortable"), document.getElementById("shown"));
