// Opens a report of guide_report() in headless Chromium: no console errors, no requests, a table that sorts and filters, and
// no sideways scrolling on a phone or a desktop. Needs Chromium (CHROMIUM, else /usr/bin/chromium) and npm's playwright-core.
//
//   node tools/report_browser_test.mjs report.html [folder for screenshots]
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";
import assert from "node:assert/strict";

// playwright-core is looked for where the script is called from: the package itself needs no Node.
const { chromium } = createRequire(path.join(process.cwd(), "x.js"))("playwright-core");
const [report, folder] = process.argv.slice(2);
assert.ok(report, "usage: node tools/report_browser_test.mjs report.html [folder]");
const url = pathToFileURL(path.resolve(report)).href;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: ["--no-sandbox"],
});

for (const [name, width, height] of [["phone", 390, 844], ["desktop", 1280, 900]]) {
  const page = await browser.newPage({ viewport: { width, height } });
  const said = [], asked = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("dialog", (dialog) => { said.push("dialog: " + dialog.message()); dialog.dismiss(); });
  page.on("request", (request) => { if (request.url() !== url && !request.url().startsWith("data:")) asked.push(request.url()); });
  await page.goto(url);
  const opened = await page.evaluate(() => performance.getEntriesByType("navigation")[0].duration);

  const wide = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wide[0] <= wide[1], `${name}: ${wide[0]} px in a window of ${wide[1]}`);
  const images = await page.evaluate(() => [...document.images].map((image) => image.complete && image.naturalWidth > 0 && image.alt !== ""));
  assert.ok(images.length >= 7 && images.every(Boolean), `${name}: pictures ${images}`);
  // Names of guides are text, never elements.
  assert.equal(await page.evaluate(() => document.querySelectorAll("script").length), 1);
  assert.equal(await page.evaluate(() => document.querySelectorAll("#guides td *").length), 0);

  const column = (n) => page.evaluate((n) => [...document.querySelectorAll("#guides tbody tr")].map((row) => row.cells[n].textContent.trim()), n);
  const click = (selector) => page.evaluate((selector) => document.querySelector(selector).click(), selector);
  const heads = await page.evaluate(() => [...document.querySelectorAll("#guides th")].map((head) => [head.textContent, head.className]));
  // Of a long table the first rows are shown, after sorting all.
  const first = (await column(0)).length;
  await click("#all");
  const whole = [];
  for (let n = 0; n < heads.length; n++) whole.push(await column(n));
  const total = whole[0].length;
  assert.ok(first === Math.min(total, 500), `${first} of ${total} rows shown`);
  await page.reload();
  for (let n = 0; n < heads.length; n++) {
    const number = heads[n][1] === "n";
    for (const way of number ? ["descending", "ascending"] : ["ascending", "descending"]) {
      await click(`#guides th:nth-child(${n + 1}) button`);
      assert.equal(await page.getAttribute(`#guides th:nth-child(${n + 1})`, "aria-sort"), way);
      const shown = await column(n);
      const sign = way === "ascending" ? 1 : -1;
      // Missing numbers are last, both ways.
      const value = (text) => (text === "" ? Infinity * sign : parseFloat(text.replace(/,/g, "")));
      const expected = number
        ? whole[n].map(value).sort((a, b) => (a === b ? 0 : sign * (a - b)))
        : [...whole[n]].sort((a, b) => sign * a.localeCompare(b, "en", { numeric: true }));
      assert.deepEqual(number ? shown.map(value) : shown, expected.slice(0, first), `${heads[n][0]} ${way}`);
    }
  }

  const guide = whole[0][0];
  const rows = () => page.evaluate(() => [...document.querySelectorAll("#guides tbody tr")].map((row) => row.textContent));
  await page.fill("#filter", guide);
  assert.ok((await rows()).length >= 1 && (await rows()).every((row) => row.toLowerCase().includes(guide.toLowerCase())));
  await page.fill("#filter", "");
  assert.equal((await rows()).length, first);
  if (await page.$("#warned")) {
    await page.check("#warned");
    assert.equal((await rows()).length, Math.min(whole[heads.length - 1].filter((text) => text !== "").length, 500));
    await page.uncheck("#warned");
  }
  if (folder) {
    await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
  }
  assert.deepEqual(said, [], `${name}: the console says`);
  assert.deepEqual(asked, [], `${name}: requests`);
  console.log(`${name}: opened in ${Math.round(opened)} ms, ${images.length} pictures, ${total} guides, ${heads.length} columns sorted both ways`);
  await page.close();
}
await browser.close();
