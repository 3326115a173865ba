"use strict";
// Tables of class "sortable": a click on a column's name sorts by it, another one turns it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const told = document.getElementById(table.dataset.told);
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        const value = cell.dataset.value ?? cell.textContent.trim();
        if (value === "") return null;
        const number = Number(value);
        return Number.isNaN(number) ? value : number;
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // nothing comes last
        const order = typeof a === "number" && typeof b === "number"
          ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return rising ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
      if (told) told.textContent = `Sorted by ${head.textContent.trim()}, ${rising ? "rising" : "falling"}.`;
    });
  });
}
// What is folded on a screen is not to be missing on paper.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = folded();
  for (const one of unfolded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of unfolded) one.open = false;
});
