// Tables of the site's own pages: a click on a title sorts, a field filters, both are said aloud.
// Without this script every row is there, in the order of the page.
const status = document.createElement("p");
status.setAttribute("role", "status");
status.className = "pm-hidden";
document.body.append(status);

const told = (cell) => cell.dataset.sort ?? cell.textContent.trim();

function compare(a, b) {
  const [x, y] = [Number(told(a)), Number(told(b))];
  const numbers = told(a) !== "" && told(b) !== "" && !Number.isNaN(x) && !Number.isNaN(y);
  return numbers ? x - y : told(a).localeCompare(told(b), "en", { numeric: true });
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (down ? -1 : 1) * compare(a.cells[at], b.cells[at]));
      table.tBodies[0].append(...rows);
      status.textContent = `Sorted by ${button.textContent}, ${head.getAttribute("aria-sort")}`;
    });
  });
}

function filterable(frame, table) {
  const label = document.createElement("label");
  const field = document.createElement("input");
  const count = document.createElement("span");
  label.className = "pm-filter";
  field.type = "search";
  label.append("Rows with the words ", field, count);
  frame.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = ` ${shown} of ${rows.length}`;
    status.textContent = `${shown} of ${rows.length} rows are shown`;
  });
}

for (const frame of document.querySelectorAll(".pm-frame")) {
  const table = frame.querySelector("table");
  if (table.tBodies[0].rows.length > 2) sortable(table);
  if (frame.hasAttribute("data-filter")) filterable(frame, table);
}

// What scrolls is reached by keyboard, and the dialog of the search has a name: the theme has neither.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const box of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    box.tabIndex = 0;
  }
});
