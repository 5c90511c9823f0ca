"use strict";
// Optional: turns column titles into sort buttons. Failed and missing entries stay last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const title = head.querySelector(".title");
    button.append(...title.childNodes);
    title.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = down ? -1 : 1;
      const rows = [...body.rows].map((row) => [row, row.cells[column].dataset]);
      rows.sort(([, a], [, b]) => {
        if (a.last !== b.last) return a.last ? 1 : -1;
        if (a.last) return 0;
        const [x, y] = [Number(a.sort), Number(b.sort)];
        const numbers = a.sort !== "" && b.sort !== "" && !Number.isNaN(x) && !Number.isNaN(y);
        return order * (numbers ? x - y : a.sort.localeCompare(b.sort));
      });
      body.append(...rows.map(([row]) => row));
    });
  });
}
// Printing shows everything.
const closed = [];
addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not([open])").forEach((d) => {
    d.open = true;
    closed.push(d);
  });
});
addEventListener("afterprint", () => closed.splice(0).forEach((d) => (d.open = false)));
