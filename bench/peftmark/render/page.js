"use strict";
// Optional: the page is complete without it. Titles sort, a field filters, and the address keeps both.
const says = document.createElement("p");
says.className = "unseen";
says.setAttribute("role", "status");
document.body.append(says);

const state = new URLSearchParams(location.hash.slice(1).includes("=") ? location.hash.slice(1) : "");
function keep(key, value) {
  if (value) state.set(key, value);
  else state.delete(key);
  const text = state.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function sortable(table, number) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const sort = (column, down) => {
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = down ? -1 : 1;
    const key = ({ dataset, firstChild }) => ({
      last: dataset.last,
      sort: dataset.sort ?? firstChild?.textContent ?? "",
    });
    const rows = [...body.rows].map((row) => [row, key(row.cells[column])]);
    rows.sort(([, a], [, b]) => {
      // Failed and missing entries stay last both ways.
      if (a.last !== b.last) return a.last ? 1 : -1;
      if (a.last) return 0;
      const [x, y] = [Number(a.sort), Number(b.sort)];
      const numbers = a.sort !== "" && b.sort !== "" && !Number.isNaN(x) && !Number.isNaN(y);
      return order * (numbers ? x - y : a.sort.localeCompare(b.sort));
    });
    body.append(...rows.map(([row]) => row));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const title = head.querySelector(".title");
    const name = title.textContent;
    const line = title.querySelector(".term"); // a name keeps its own button
    if (line) button.setAttribute("aria-label", `Sort by ${name}`);
    else button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      sort(column, down);
      keep(`s${number}`, `${column}${down ? "d" : "a"}`);
      says.textContent = `Sorted by ${name}, ${down ? "descending" : "ascending"}.`;
    });
  });
  const kept = /^(\d+)([ad])$/.exec(state.get(`s${number}`) ?? "");
  if (kept && heads[kept[1]]) sort(Number(kept[1]), kept[2] === "d");
}

function filterable(table, number) {
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const label = document.createElement("label");
  label.className = "filter";
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "every word must occur";
  const count = document.createElement("span");
  label.append("Filter rows ", field, count);
  table.closest(".scroll").before(label);
  const filter = () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !wanted.every((word) => texts[i].includes(word));
      shown += !row.hidden;
    });
    count.textContent = wanted.length ? ` ${shown} of ${rows.length}` : "";
    if (wanted.length) says.textContent = `${shown} of ${rows.length} rows shown.`;
  };
  field.addEventListener("input", () => {
    filter();
    keep(`f${number}`, field.value);
  });
  field.value = state.get(`f${number}`) ?? "";
  if (field.value) filter();
}

document.querySelectorAll("table").forEach((table, number) => {
  const rows = table.tBodies[0].rows.length;
  if (rows > 1) sortable(table, number);
  if (rows > 10 || "filter" in table.dataset) filterable(table, number);
});

// A name in a chart opens its line too.
const lines = new Map();
[...document.querySelectorAll(".term")].reverse().forEach((b) => lines.set(b.textContent, b));
document.querySelectorAll("svg.chart text").forEach((text) => {
  const button = lines.get(text.textContent.trim().replace(" (reference)", ""));
  const line = button?.popoverTargetElement;
  if (!line) return;
  text.classList.add("term");
  text.addEventListener("click", () => line.showPopover({ source: button }));
});

// A shared view opened in the tab of another.
addEventListener("hashchange", () => location.hash.includes("=") && location.reload());

// Printing shows everything.
const closed = [];
addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not([open])").forEach((d) => {
    d.open = true;
    closed.push(d);
  });
});
addEventListener("afterprint", () => closed.splice(0).forEach((d) => (d.open = false)));
