// Opens every page of the site in a real browser, from files and offline, as a visitor would.
//
//   node site.mjs [--thorough] PICTURES SITE [PAGE...]
//
// SITE: the folder of `make site`; PAGE: pages of it, all by default. On every page: nothing on the console, no request to anything
// but files of the site, every link leads to a page and a place that are there, nothing is wider
// than a phone. On the site's own pages, with --thorough on every one, axe in light and dark. On the
// first page: what it loads is under 1 MB, and the search finds. Pictures of the first page and of the
// claims go to PICTURES. Says each fault on a line of its own; the exit code is 1 if there is any.
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const browserPath = process.env.CHROMIUM || "/usr/bin/chromium";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const thorough = process.argv.includes("--thorough");
const [pictures, site, ...named] = process.argv.slice(2).filter((word) => word !== "--thorough");
const stop = (text) => {
  console.error(text);
  process.exit(2);
};
if (!site || !existsSync(join(site, "index.html"))) stop(`no site at ${site}: run make site`);
if (!existsSync(browserPath)) stop(`no browser at ${browserPath}; set CHROMIUM to one`);
mkdirSync(pictures, { recursive: true });

const MOST_BYTES = 1e6;
const root = resolve(site);
const home = pathToFileURL(root).href;
const faults = new Set();
let name = "";
const must = (truth, text) => truth || faults.add(`${name}: ${text}`);
const phone = { width: 390, height: 844, isMobile: true, hasTouch: true };
const desktop = { width: 1280, height: 800, isMobile: false, hasTouch: false };

const files = readdirSync(root, { recursive: true })
  .filter((file) => file.endsWith(".html") && (!named.length || named.includes(file)));
files.sort((a, b) => (a === "index.html" ? -1 : b === "index.html" ? 1 : a < b ? -1 : 1));
const own = (file) => !file.startsWith("reports/");
const looked = (file) => /^(index|evidence\/|methods\/(index|lora|adalora)\.|reference\/)/.test(file)
  || ["docs/start.html", "docs/columns.html", "docs/memory-tables.html"].includes(file);

const browser = await puppeteer.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"],
});
let loaded = new Set();

/** A tab that reports every console message, error and request beyond the site's files. */
async function open() {
  const tab = await browser.newPage();
  tab.on("console", (m) => must(false, `console: ${m.type()}: ${m.text()}`));
  tab.on("pageerror", (e) => must(false, `script error: ${e.message}`));
  tab.on("requestfailed", (r) => must(false, `not loaded: ${r.url()}`));
  tab.on("request", (r) => {
    const inside = r.url().startsWith(`${home}/`) || /^(data|blob|about):/.test(r.url());
    must(inside, `request: ${r.url()}`);
    if (r.url().startsWith("file:")) loaded.add(r.url().split(/[?#]/)[0]);
  });
  await tab.setOfflineMode(true);
  await look(tab, false);
  return tab;
}

const look = (tab, dark) =>
  tab.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: dark ? "dark" : "light" },
    { name: "prefers-reduced-motion", value: "reduce" },
  ]);
const go = (tab, file) => tab.goto(`${home}/${file}`, { waitUntil: "load" });

const ids = new Map();
/** Where links of a page lead, and what can be led to on it. */
async function gather(tab, file) {
  const found = await tab.evaluate(() => ({
    ids: [...document.querySelectorAll("[id], a[name]")].map((e) => e.id || e.name),
    links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
    pictures: [...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src),
  }));
  ids.set(file, new Set(found.ids));
  for (const source of found.pictures) must(false, `picture not shown: ${source}`);
  return found.links.map((link) => [file, link]);
}

/** Every link within the site leads to a file, and to a place on it. */
function checkLinks(links) {
  for (const [file, link] of links) {
    name = file;
    if (!link.startsWith("file:")) continue;
    const url = new URL(link);
    const path = fileURLToPath(`file://${url.pathname}`);
    const target = relative(root, path);
    if (!existsSync(path) || target.startsWith("..")) must(false, `leads nowhere: ${link}`);
    else if (statSync(path).isDirectory()) must(false, `leads to a folder: ${link}`);
    const place = decodeURIComponent(url.hash.slice(1));
    if (!place || !ids.has(target) || !own(target) || place.startsWith("__")) continue;
    must(ids.get(target).has(place), `no such place: ${target}#${place}`);
  }
}

async function checkWidth(tab) {
  const [wide, window] = await tab.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  must(wide <= window, `${wide} px wide in a window of ${window} px`);
}

async function checkAxe(tab, theme) {
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate(() => globalThis.axe.run({ preload: false }));
  for (const v of violations) {
    const where = `${v.nodes.length}: ${v.nodes[0].target.join(" ")}: ${v.nodes[0].html.slice(0, 90)}`;
    const line = `axe, ${theme}: ${v.impact}: ${v.id}: ${v.help} (${where})`;
    if (["serious", "critical"].includes(v.impact)) must(false, line);
  }
}

/** What the first page loads, and that its search finds a method and leads to it. */
async function checkHome(tab) {
  const bytes = [...loaded].map((url) => statSync(fileURLToPath(url)).size);
  const sum = bytes.reduce((a, b) => a + b, 0);
  must(sum < MOST_BYTES, `loads ${sum} bytes, and ${MOST_BYTES} are allowed`);
  const heads = await tab.$$eval(".pm-answer", (all) => all.length);
  must(heads === 3, `${heads} answers`);
  await tab.click("label.md-search__icon[for=__search], input.md-search__input");
  await tab.type("input.md-search__input", "AdaLoRA");
  const found = await tab
    .waitForSelector(".md-search-result__link", { timeout: 20000 })
    .then(() => tab.$$eval(".md-search-result__link", (all) => all.map((a) => a.href)))
    .catch(() => []);
  must(found.length > 0, "the search finds nothing for AdaLoRA");
  await tab.keyboard.press("Escape");
  return sum;
}

/** A field filters the table of claims, and a click on a title sorts it. */
async function checkClaims(tab) {
  const rows = () =>
    tab.$$eval(".pm-table tbody tr", (all) =>
      all.filter((r) => r.checkVisibility()).map((r) => r.cells[0].textContent.trim()),
    );
  const before = await rows();
  await tab.type(".pm-filter input", "QLoRA");
  const some = await rows();
  must(some.length > 0 && some.length < before.length, "claims: the field filters nothing");
  await tab.$eval(".pm-filter input", (field) => {
    field.value = "";
    field.dispatchEvent(new Event("input"));
  });
  await tab.click(".pm-table thead button");
  await tab.click(".pm-table thead button");
  const after = await rows();
  must(after[0] === before.at(-1) && after.length === before.length, "claims: no sorting");
}

async function checkPage(tab, file) {
  await tab.setViewport(desktop);
  await look(tab, false);
  loaded = new Set();
  await go(tab, file);
  const links = await gather(tab, file);
  if (thorough ? own(file) : looked(file)) {
    await checkAxe(tab, "light");
    await look(tab, true);
    await go(tab, file);
    const scheme = await tab.$eval("body", (e) => e.dataset.mdColorScheme);
    must(scheme === "slate", `dark: the page's colours are ${scheme}`);
    await checkAxe(tab, "dark");
  }
  if (file === "index.html") first = await checkHome(tab);
  if (file === "evidence/claims.html") await checkClaims(tab);
  await tab.setViewport(phone);
  await checkWidth(tab);
  return links;
}

let first = 0;
const links = [];
const tab = await open();
for (const file of files) {
  name = file;
  links.push(...(await checkPage(tab, file)));
}
checkLinks(links);
for (const file of ["index.html", "evidence/claims.html"]) {
  for (const [word, size, dark] of [["light", desktop], ["dark", desktop, true], ["phone", phone]]) {
    await tab.setViewport(size);
    await look(tab, dark);
    await go(tab, file);
    await tab.screenshot({ path: join(pictures, `${file.replace(/\W/g, "-")}-${word}.png`) });
  }
}
await browser.close();

for (const text of faults) console.error(text);
const told = `${files.length} pages, ${links.length} links; the first page loads ${first} bytes`;
console.log(faults.size ? `${told}; faults: ${faults.size}` : `${told}; no fault`);
process.exit(faults.size ? 1 : 0);
