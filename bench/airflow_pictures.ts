/**
 * Takes the screenshots of Airflow: `npm run pictures:airflow`. A successful run, one with rejects, and one whose check
 * failed, with that task's log, in docs/pictures/.
 *
 * @module
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { installAirflow, openAirflow, postRows } from "../test/support/airflow.ts";
import { findBrowser, noBrowser, openBrowser } from "../test/support/browser.ts";
import { openServices } from "../test/support/services.ts";

const folder = new URL("../docs/pictures/", import.meta.url).pathname;
const executable = findBrowser();
if (!executable) throw new Error(noBrowser);
await mkdir(folder, { recursive: true });
await installAirflow();
const services = await openServices({ rows: 11_154 });
const settings = { data: services.data, schedule: null };
const airflow = await openAirflow(services.folder.path, { AIRFLOW_VAR_PINTEREST: JSON.stringify(settings) });
try {
  await airflow.ended(await airflow.trigger());
  const good = await airflow.ended(await airflow.trigger());
  await postRows(services.data, "geo", [{ ind: 1 }, "text"]);
  await using browser = await openBrowser(executable);
  const take = async (path: string, name: string) => {
    // Wide enough for three runs in the grid.
    await using context = await browser.newContext({ viewport: { width: 1600, height: 800 }, colorScheme: "light" });
    const page = await context.newPage();
    page.setDefaultTimeout(120_000);
    await page.goto(airflow.url);
    await page.locator('input[name="username"]').fill("admin");
    await page.locator('input[name="password"]').fill(airflow.password);
    await page.locator('button[type="submit"]').click();
    await page.waitForURL((url) => !url.pathname.includes("login"));
    await page.goto(`${airflow.url}/${path}`);
    await page.waitForLoadState("networkidle");
    await sleep(Number(process.env.PICTURE_SECONDS ?? 10) * 1000);
    // The traceback contains folders of this machine.
    if (name === "check") await page.getByText("AirflowFailException").first().click();
    await page.screenshot({ path: join(folder, `airflow-${name}.png`) });
  };
  await take(`dags/pinterest/runs/${good.id}`, "good");
  const bad = await airflow.ended(await airflow.trigger());
  await take(`dags/pinterest/runs/${bad.id}`, "failed");
  await take(`dags/pinterest/runs/${bad.id}/tasks/check`, "check");
} finally {
  await airflow.close();
  await services.close();
}
