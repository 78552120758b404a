/**
 * The local Airflow of deploy/airflow, with a separate metadata database, and its REST API.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../../local/processes.ts";
import { start } from "./support.ts";

const script = fileURLToPath(new URL("../../deploy/airflow/local.sh", import.meta.url));

/** Not installed, because only the Databricks variant needs it. */
const databricks = "apache-airflow-providers-databricks==7.23.0";

/** A task of a run, from the REST API. */
export interface Task {
  task_id: string;
  state: string | null;
  try_number: number;
}

/** A run that has ended. */
export interface Ended {
  id: string;
  state: string;
  tasks: Record<string, Task>;
}

/** A running Airflow. */
export interface Airflow {
  url: string;
  password: string;
  api: <T>(method: string, path: string, body?: unknown) => Promise<T>;
  /** Starts a run with params. */
  trigger: (conf?: Record<string, unknown>) => Promise<string>;
  tasks: (id: string) => Promise<Record<string, Task>>;
  /** Waits until a run has ended. */
  ended: (id: string) => Promise<Ended>;
  log: (id: string, task: string, attempt?: number) => Promise<string>;
  /** A task's XCom value. */
  result: <T>(id: string, task: string) => Promise<T>;
  /** Clears tasks of a run and their downstream tasks, so that they run again. */
  again: (id: string, task: string) => Promise<void>;
  /** Stops Airflow and all its processes. */
  close: () => Promise<void>;
}

/** Posts rows through the HTTP API, as other clients would. */
export async function postRows(data: string, topic: string, values: unknown[]): Promise<void> {
  const server = start(["serve", "--data", data, "--port", "0"]);
  await server.said(/Listening on \S+\n/);
  const url = /Listening on (\S+)/.exec(server.output())?.[1];
  const response = await fetch(`${url}/topics/pinterest.${topic}`, {
    ...{ method: "POST", headers: { "content-type": "application/vnd.kafka.json.v2+json" } },
    body: JSON.stringify({ records: values.map((value) => ({ value })) }),
  });
  assert.equal(response.status, 200, await response.text());
  server.kill("SIGTERM");
  await server.done;
}

/** Installs Airflow into the cache, unless it is there. @returns its Python */
export async function installAirflow(): Promise<string> {
  const { code, stdout, stderr } = await start(["install", databricks], { program: [script] }).done;
  assert.equal(code, 0, stdout + stderr);
  return join(/ is in (.*)\n/.exec(stdout)?.[1] as string, "bin", "python");
}

/** Polls until there is a result, for at most 15 minutes. */
async function until<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const stop = Date.now() + 15 * 60_000;
  for (;;) {
    const found = await ask();
    if (found !== undefined) return found;
    if (Date.now() > stop) throw new Error(`Waited 15 minutes for ${what}`);
    await sleep(500);
  }
}

/** The processes with a text in their environment, with their names. */
function processesWith(text: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/environ`, "utf8").includes(text))
        found.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`);
    } catch {
      // It has ended, or belongs to another user.
    }
  }
  return found;
}

/** Starts a new Airflow in `folder`, and waits until it has loaded the DAG. */
export async function openAirflow(folder: string, env: NodeJS.ProcessEnv): Promise<Airflow> {
  const home = join(folder, "airflow");
  await mkdir(home, { recursive: true });
  const port = await freePort();
  const running = start(["start"], { program: [script], env: { ...env, AIRFLOW_HOME: home, PORT: String(port) } });
  let over = false;
  void running.done.then(() => {
    over = true;
  });
  const close = async () => {
    running.kill("SIGTERM");
    await running.done;
    assert.deepEqual(processesWith(`AIRFLOW_HOME=${home}`), []);
  };
  const url = `http://127.0.0.1:${port}`;
  try {
    const password = await until("Airflow's password", async () => {
      if (over) throw new Error(`Airflow ended: ${running.output()}`);
      const text = await readFile(join(home, "simple_auth_manager_passwords.json.generated"), "utf8").catch(() => "");
      return text ? (JSON.parse(text) as { admin: string }).admin : undefined;
    });
    const answer = await until("Airflow's API", async () => {
      if (over) throw new Error(`Airflow ended: ${running.output()}`);
      const login = await fetch(`${url}/auth/token`, {
        ...{ method: "POST", headers: { "content-type": "application/json" } },
        body: JSON.stringify({ username: "admin", password }),
      }).catch(() => undefined);
      return login?.ok ? ((await login.json()) as { access_token: string }) : undefined;
    });
    const headers = { authorization: `Bearer ${answer.access_token}`, "content-type": "application/json" };
    const ask = (method: string, path: string, body?: unknown) =>
      fetch(`${url}/api/v2/${path}`, {
        ...{ method, headers: { ...headers, accept: "application/json" } },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    const api = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
      const response = await ask(method, path, body);
      const text = await response.text();
      assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
      return JSON.parse(text) as T;
    };
    await until("the DAG", async () => {
      const { import_errors: errors } = await api<{ import_errors: unknown[] }>("GET", "importErrors");
      assert.deepEqual(errors, []);
      return (await ask("GET", "dags/pinterest")).ok || undefined;
    });
    await api("PATCH", "dags/pinterest", { is_paused: false });
    const runs = "dags/pinterest/dagRuns";
    const self: Airflow = {
      ...{ url, password, api, close },
      async trigger(conf = {}) {
        const run = await api<{ dag_run_id: string }>("POST", runs, { logical_date: null, conf });
        return encodeURIComponent(run.dag_run_id);
      },
      async tasks(id) {
        const { task_instances: found } = await api<{ task_instances: Task[] }>("GET", `${runs}/${id}/taskInstances`);
        return Object.fromEntries(found.map((task) => [task.task_id, task]));
      },
      async ended(id) {
        const state = await until(`the end of ${id}`, async () => {
          const run = await api<{ state: string }>("GET", `${runs}/${id}`);
          return /success|failed/.test(run.state) ? run.state : undefined;
        });
        return { id, state, tasks: await self.tasks(id) };
      },
      async log(id, task, attempt = 1) {
        const path = `${runs}/${id}/taskInstances/${task}/logs/${attempt}?full_content=true`;
        interface Line {
          level?: string;
          event?: string;
          error_detail?: { exc_value: string }[];
        }
        const { content } = await api<{ content: Line[] }>("GET", path);
        const text = ({ level = "", event = "", error_detail: errors = [] }: Line) =>
          [level, event, ...errors.map((error) => error.exc_value)].join(" ");
        return content.map(text).join("\n");
      },
      async result<T>(id: string, task: string) {
        const path = `${runs}/${id}/taskInstances/${task}/xcomEntries/return_value?deserialize=true`;
        return (await api<{ value: T }>("GET", path)).value;
      },
      async again(id, task) {
        await api("POST", "dags/pinterest/clearTaskInstances", {
          ...{ dry_run: false, dag_run_id: decodeURIComponent(id), task_ids: [task] },
          ...{ include_downstream: true, only_failed: false, reset_dag_runs: true },
        });
      },
    };
    return self;
  } catch (error) {
    await close();
    throw error;
  }
}
