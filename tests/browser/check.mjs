// Opens pages in a real browser, offline, and uses them as a reader would.
//
//   node check.mjs [--thorough] PICTURES PAGE...
//
// PAGE: an HTML file, or a folder, of which every HTML file is opened. The first one, a report that
// has something to sort and to filter, is looked at from all sides and has its pictures in the folder
// PICTURES; the others are looked at in less, with --thorough all alike. Says each fault on a line of its own; the exit code is 1 if there is
// any. CHROMIUM names the browser, /usr/bin/chromium by default.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const browserPath = process.env.CHROMIUM || "/usr/bin/chromium";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const thorough = process.argv.includes("--thorough");
const [pictures, ...given] = process.argv.slice(2).filter((word) => word !== "--thorough");
const stop = (text) => {
  console.error(text);
  process.exit(2);
};
if (!given.length) stop("name a folder for pictures, and pages: HTML files or folders of them");
if (!existsSync(browserPath)) stop(`no browser at ${browserPath}; set CHROMIUM to one`);
mkdirSync(pictures, { recursive: true });

/** Every HTML file that a name stands for, index.html first. */
function pagesOf(name) {
  if (!existsSync(name)) stop(`no page at ${name}`);
  if (!statSync(name).isDirectory()) return [resolve(name)];
  const found = readdirSync(name, { recursive: true }).filter((file) => file.endsWith(".html"));
  if (!found.length) stop(`no page below ${name}`);
  const depth = (file) => [file.split("/").length, basename(file) !== "index.html", file].join();
  return found.sort((a, b) => (depth(a) < depth(b) ? -1 : 1)).map((file) => resolve(name, file));
}

/** What is opened: a page that is read again and again is opened without that, so that it stays. */
function opened(file) {
  const text = readFileSync(file, "utf8");
  const refresh = /<meta http-equiv="refresh" content="(\d+)(?:; url=([^"]+))?">/.exec(text);
  if (!refresh) return file;
  if (refresh[2]) {
    must(existsSync(join(dirname(file), refresh[2])), `leads to ${refresh[2]}, which is not there`);
    return null;
  }
  const copy = resolve(pictures, "live.html");
  writeFileSync(copy, text.replace(refresh[0], ""));
  return copy;
}

let address = "";
let name = "";
let folder = pictures;
const faults = [];
const must = (truth, text) => truth || faults.push(`${name}: ${text}`);
const fault = (text) => must(false, text);
const sizes = {
  desktop: { width: 1280, height: 800 },
  phone: { width: 390, height: 844 },
  narrow: { width: 360, height: 740 },
};

const browser = await puppeteer.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"],
});

/** A tab that reports every console message, error and request but the one for the page. */
async function open({ size = "desktop", dark = false, script = true, fragment = "" } = {}) {
  const tab = await browser.newPage();
  tab.on("console", (m) => fault(`console: ${m.type()}: ${m.text()}`));
  tab.on("pageerror", (e) => fault(`script error: ${e.message}`));
  tab.on("request", (r) => must(r.url().split("#")[0] === address, `request: ${r.url()}`));
  await tab.setOfflineMode(true);
  await tab.setJavaScriptEnabled(script);
  const small = size !== "desktop";
  await tab.setViewport({ ...sizes[size], isMobile: small, hasTouch: small });
  const theme = { name: "prefers-color-scheme", value: dark ? "dark" : "light" };
  await tab.emulateMediaFeatures([theme, { name: "prefers-reduced-motion", value: "reduce" }]);
  await tab.goto(address + fragment, { waitUntil: "load" });
  return tab;
}

const spoken = (tab) => tab.$eval("[role=status]", (p) => p.textContent);

/** Clicks the first title of the first open table that has rows to move. */
async function checkSorting(tab, needed) {
  const found = await tab.evaluateHandle(() =>
    [...document.querySelectorAll("table")].find((t) => {
      const names = [...t.tBodies[0].rows].map((r) => r.cells[0].firstChild.textContent);
      return !t.closest("details") && new Set(names).size > 2;
    }),
  );
  const table = found.asElement();
  const button = await table?.$("thead th button");
  if (!button) return needed && fault("sorting: no open table with a button and three names");
  const names = () =>
    table.evaluate((t) => [...t.tBodies[0].rows].map((r) => r.cells[0].firstChild.textContent));
  const orders = [await names()];
  for (const order of ["ascending", "descending"]) {
    await button.click();
    orders.push(await names());
    const state = await table.$$eval("thead th", (all) => all.map((h) => h.ariaSort));
    must(state[0] === order, `sorting: aria-sort is ${state[0]}, not ${order}`);
    must(state.filter(Boolean).length === 1, "sorting: aria-sort is on several titles");
    must((await spoken(tab)).includes(order), `sorting: the live region does not say ${order}`);
  }
  must(orders[1].join() !== orders[2].join(), "sorting: rows do not move");
  must(new Set(orders.map((o) => o.sort().join())).size === 1, "sorting: rows are lost");
  must(/[#&]s\d+=/.test(tab.url()), "sorting: the address does not keep the order");
}

const OPEN = "div.block > label.filter";
const unfold = (tab) =>
  tab.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));

/** Types into the first filter field, then opens the address that came of it. */
async function checkFilter(tab, needed) {
  await unfold(tab);
  const field = await tab.$(`${OPEN} input`);
  if (!field) return needed && fault("filter: no field");
  const label = await tab.$(OPEN);
  const rows = await label.evaluateHandle((l) => [
    ...l.parentElement.querySelector("table").tBodies[0].rows,
  ]);
  const word = await rows.evaluate((all) => all.at(-1).cells[0].firstChild.textContent.trim());
  const names = await rows.evaluate((all) => all.map((r) => r.textContent));
  if (!needed && names.every((text) => text.includes(word))) return;
  await field.click();
  await tab.keyboard.type(word);
  const all = await rows.evaluate((found) => found.length);
  const shown = await rows.evaluate((found) => found.filter((r) => r.offsetHeight).length);
  must(shown > 0 && shown < all, `filter: ${shown} of ${all} rows are shown for "${word}"`);
  const said = `${shown} of ${all}`;
  must((await label.evaluate((l) => l.textContent)).includes(said), `filter: not said: ${said}`);
  must((await spoken(tab)).includes(said), `filter: the live region does not say ${said}`);
  must(/[#&]f\d+=/.test(tab.url()), "filter: the address does not keep it");
  const again = await open({ fragment: new URL(tab.url()).hash });
  const kept = await again.$eval(`${OPEN} input`, (f) => f.value);
  const left = await again.$eval(OPEN, (l) => l.textContent);
  must(kept === word && left.includes(said), "filter: lost when the address is opened again");
  await again.reload();
  must((await again.$eval(`${OPEN} input`, (f) => f.value)) === word, "filter: lost on reload");
  await again.close();
}

/** The first screen holds the answer, a chart and four facts, without scrolling. */
async function checkFirst(tab, look) {
  const at = await tab.evaluate(() => {
    const end = (e) => e?.getBoundingClientRect().bottom + scrollY;
    const shown = [...document.querySelectorAll(".panel svg")].filter((e) => e.checkVisibility());
    return {
      height: innerHeight,
      ends: [...document.querySelectorAll(".answer, .tiles > div"), ...shown].map(end),
      charts: shown.length,
      all: document.querySelectorAll(".panel").length,
    };
  });
  if (!at.all) return;
  must(at.charts === 1, `${look}: ${at.charts} charts are shown at once`);
  const lowest = Math.max(...at.ends);
  must(lowest <= at.height, `${look}: the first screen ends at ${lowest} px of ${at.height}`);
}

/** Every button shows its own chart, without a script; a link of trust opens its list. */
async function checkButtons(tab) {
  const costs = await tab.$$eval("fieldset input", (all) => all.map((i) => i.value));
  for (const cost of costs) {
    await tab.click(`fieldset label:has([value="${cost}"])`);
    const shown = await tab.$$eval(".panel", (all) =>
      all.filter((e) => e.checkVisibility()).map((e) => e.dataset.cost),
    );
    must(shown.join() === cost, `buttons: ${cost} shows ${shown.join() || "nothing"}`);
  }
  const lists = await tab.$$(".shapes select");
  const shown = () =>
    tab.$$eval("#glance svg [id*='-line-']", (all) =>
      all.filter((g) => /-s\d+-line/.test(g.id) && getComputedStyle(g).display !== "none").length,
    );
  for (const list of lists) {
    const values = await list.$$eval("option", (all) => all.map((o) => o.value));
    const before = await shown();
    must(before >= 1 && before <= 3, `radar: ${before} shapes are shown`);
    await list.select(values.at(-1));
  }
  if (lists.length) must((await shown()) === 1, "radar: three lists of one name show several shapes");
  const links = await tab.$$(".tiles a");
  for (const link of links) {
    const [text, id] = await link.evaluate((a) => [a.textContent, a.hash.slice(1)]);
    await link.click();
    const seen = await tab.$eval(`[id="${id}"]`, (e) => e.checkVisibility());
    must(seen, `trust: "${text}" does not open its list`);
  }
}

/** A name opens what it means, by a click, a tap or the keyboard, inside the window; and closes. */
async function checkNames(tab, look) {
  const button = await tab.$(".answer .term, .names .term");
  if (!button) return;
  const line = await button.evaluateHandle((b) => b.popoverTargetElement);
  const seen = () => line.evaluate((e) => e.checkVisibility());
  must(!(await seen()), `${look}: a line is open before its name is used`);
  await (look === "phone" || look === "narrow" ? button.tap() : button.click());
  const [box, view] = await line.evaluate((e) => [
    e.getBoundingClientRect().toJSON(), [innerWidth, innerHeight],
  ]);
  must(await seen(), `${look}: a name does not open its line`);
  const fits = box.left >= 0 && box.right <= view[0] && box.top >= 0 && box.bottom <= view[1];
  must(fits, `${look}: a line leaves the window`);
  await tab.keyboard.press("Escape");
  must(!(await seen()), `${look}: Escape does not close a line`);
  await button.focus();
  await tab.keyboard.press("Enter");
  must(await seen(), `${look}: Enter on a name does not open its line`);
  await tab.keyboard.press("Escape");
}

/** Headings go down one level at a time. */
async function checkHeadings(tab) {
  const levels = await tab.$$eval("h1, h2, h3, h4", (all) => all.map((h) => Number(h.tagName[1])));
  must(levels[0] === 1, "headings: the first is no h1");
  const jumps = levels.filter((level, i) => i && level > levels[i - 1] + 1);
  must(!jumps.length, `headings: ${jumps.length} skip a level`);
}

/** Tabs from the top until a table's frame and a sort button had the focus. */
async function checkKeyboard(tab) {
  await unfold(tab);
  if (!(await tab.$(".scroll table thead button"))) return;
  const seen = new Set();
  for (let i = 0; i < 80 && seen.size < 2; i++) {
    await tab.keyboard.press("Tab");
    const at = await tab.evaluate(() => {
      const e = document.activeElement;
      const ring = getComputedStyle(e).outlineStyle !== "none";
      return { frame: e.matches(".scroll:has(table)"), button: e.matches("thead button"), ring };
    });
    if (!at.frame && !at.button) continue;
    must(at.ring, "keyboard: the focus is not visible");
    seen.add(at.frame ? "frame" : "button");
    if (!at.button) continue;
    await tab.keyboard.press("Enter");
    must((await spoken(tab)).startsWith("Sorted"), "keyboard: Enter on a title does not sort");
  }
  must(seen.size === 2, `keyboard: Tab reached only ${[...seen].join() || "nothing"} of tables`);
}

async function checkAxe(tab, look) {
  await unfold(tab);
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate(() => globalThis.axe.run());
  for (const v of violations) {
    const where = `${v.nodes.length}: ${v.nodes[0].target.join(" ")}`;
    const line = `axe, ${look}: ${v.impact}: ${v.id}: ${v.help} (${where})`;
    if (["serious", "critical"].includes(v.impact)) fault(line);
    else console.log(`${name}: ${line}`);
  }
}

/** Nothing may be wider than the window but what scrolls in a frame of its own. */
async function checkWidth(tab, look) {
  const [wide, window] = await tab.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  must(wide <= window, `${look}: the page is ${wide} px wide in a window of ${window} px`);
}

/** Two pages hold the answer and the questions; nothing folded is left out, no control is shown. */
async function checkPrint(paper) {
  await paper.emulateMediaType("print");
  await paper.setViewport({ width: 710, height: 1000 });
  const pageHeight = 1040; // of A4 between its margins, in pixels of 710 a line
  const questions = await paper.evaluate(() =>
    Math.max(
      0,
      ...[...document.querySelectorAll(".question")].map((e) => e.getBoundingClientRect().bottom),
    ),
  );
  must(questions <= 2 * pageHeight, `print: answer and questions end at ${questions} px`);
  await checkWidth(paper, "print");
  const count = (all, shown) => all.filter((e) => Boolean(e.offsetHeight) === shown).length;
  const controls = await paper.$$eval(".filter, nav", count, true);
  must(controls === 0, `print: ${controls} controls are shown`);
  const folded = await paper.$$eval("details table", count, false);
  must(folded === 0, `print: ${folded} folded tables stay closed`);
}

const picture = (tab, file) => tab.screenshot({ path: join(folder, file), fullPage: true });
const LOOKS = {
  light: {},
  dark: { dark: true },
  phone: { size: "phone" },
  "no-script": { script: false },
  narrow: { size: "narrow" },
};

/** From all sides: every look with its pictures, the keyboard, what is printed. */
async function checkWell(needed) {
  for (const check of [checkKeyboard, checkSorting, checkFilter, checkHeadings]) {
    const tab = await open();
    await check(tab, needed);
    await tab.close();
  }
  for (const [look, options] of Object.entries(LOOKS)) {
    const tab = await open(options);
    if (look !== "narrow") await checkFirst(tab, look);
    await checkNames(tab, look);
    await tab.screenshot({ path: join(folder, `${look}-first.png`) });
    await picture(tab, `${look}.png`);
    await checkWidth(tab, look);
    if (options.script !== false) await checkAxe(tab, look);
    await tab.close();
  }
  const bare = await open({ script: false });
  await checkButtons(bare);
  await bare.close();
  const paper = await open();
  await paper.pdf({ path: join(folder, "print.pdf"), format: "A4", preferCSSPageSize: true });
  await checkPrint(paper);
  await picture(paper, "print.png");
  await paper.close();
}

/** In less: three tabs, each used for all that it can show. */
async function checkBriefly() {
  const tab = await open({ dark: true });
  await checkFirst(tab, "dark");
  await checkHeadings(tab);
  await checkAxe(tab, "dark");
  await checkFilter(tab, false);
  await checkSorting(tab, false);
  await checkKeyboard(tab);
  await tab.close();
  const phone = await open({ size: "phone" });
  await checkFirst(phone, "phone");
  await checkNames(phone, "phone");
  await phone.setViewport({ ...sizes.narrow, isMobile: true, hasTouch: true });
  await checkWidth(phone, "narrow");
  await checkAxe(phone, "narrow");
  await phone.close();
  const bare = await open({ script: false });
  await checkFirst(bare, "no-script");
  await checkButtons(bare);
  await checkPrint(bare);
  await bare.close();
}

const pages = given.flatMap(pagesOf);
for (const [number, file] of pages.entries()) {
  name = relative(process.cwd(), file);
  const shown = opened(file);
  if (!shown) continue;
  address = pathToFileURL(shown).href;
  folder = number ? join(pictures, name.replace(/[^a-z0-9]+/gi, "-")) : pictures;
  const well = thorough || !number;
  if (well) mkdirSync(folder, { recursive: true });
  await (well ? checkWell(number === 0) : checkBriefly());
}
await browser.close();

const found = [...new Set(faults)];
for (const text of found) console.error(text);
const looked = `${pages.length} ${pages.length === 1 ? "page" : "pages"} looked at`;
console.log(found.length ? `${looked}, faults: ${found.length}` : `${looked}, no fault; pictures in ${pictures}`);
process.exit(faults.length ? 1 : 0);
