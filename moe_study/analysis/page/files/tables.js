/* Tables that sort: a heading is a button; the first press sorts upwards, the next downwards. */
"use strict";
(() => {
  /* Cells without a value come last, whichever way. */
  function compare(one, other, sign) {
    if (one === "" || other === "") return (one === "") - (other === "");
    const difference = Number(one) - Number(other);
    return sign * (Number.isNaN(difference) ? one.localeCompare(other, undefined, { numeric: true }) : difference);
  }

  function sort(table, place, heading) {
    const upwards = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [row.cells[place].dataset.key, row]);
    rows.sort(([one], [other]) => compare(one, other, upwards ? 1 : -1));
    body.append(...rows.map(([, row]) => row));
    page.say(`sorted by ${heading.textContent.trim()}, ${upwards ? "ascending" : "descending"}`);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, place) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, place, heading));
    });
  }
})();
