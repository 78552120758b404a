"""The pipeline as an Airflow DAG: post -> clean -> ledger -> check -> report, and rejects if there are new ones.

Each task runs a command of this program; the task's log shows its progress and warnings. The settings are in one Airflow
variable, `pinterest`, a JSON object; all have defaults (see README.md). Exit code 1 or a signal is retried; 2 (wrong use)
is not; 3 (done with new rejects) is a success with a warning.
"""

import datetime
import json
import logging
import os
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from airflow.sdk import DAG, Asset, BaseOperator, Param, Variable, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

SETTINGS = {
    "schedule": "@hourly",
    # The folder of package.json; node must be in the PATH.
    "repository": str(Path(__file__).resolve().parents[2]),
    "data": "data",
    # null: db_creds.yaml of the repository if it exists, otherwise the services that `up` started.
    "creds": None,
    "prefix": None,
    "wait": 60,
    "retries": 3,
    "retry_seconds": 60,
    "timeout_minutes": 240,
    "max_reject_share": 0.01,
    "max_lag": 10_000,
    # null: no limit.
    "max_behind_seconds": None,
    # "program" or "databricks". The rest is for databricks.
    "clean_with": "program",
    "databricks_connection": "databricks_default",
    "databricks_job": "pinterest-data-pipeline",
    "databricks_schema": "main.pinterest",
    "databricks_warehouse": None,
}

given = Variable.get("pinterest", default={}, deserialize_json=True)
unknown = set(given) - set(SETTINGS)
if unknown:
    raise ValueError(f'Variable "pinterest": unknown {sorted(unknown)}; it takes {sorted(SETTINGS)}')
settings = SETTINGS | given
if settings["clean_with"] not in ("program", "databricks"):
    raise ValueError(f'Variable "pinterest": clean_with is "{settings["clean_with"]}", not "program" or "databricks"')
on_databricks = settings["clean_with"] == "databricks"
data = Path(settings["repository"], settings["data"])

log = logging.getLogger("airflow.task")
report_asset = Asset("pinterest_report")


class Program(BaseOperator):
    """Runs a command of this program, logs its stderr, and returns `keep` of its JSON result, or all of it."""

    template_fields = ("command",)

    def __init__(self, *, command: str, keep: tuple[str, ...] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.command = command
        self.keep = keep
        self.process = None

    def execute(self, context):
        params = context["params"]
        arguments = [self.command, "--json", "--data", str(data), "--wait", str(params["wait"])]
        for name, value in (("--creds", params["creds"]), ("--prefix", settings["prefix"])):
            if value:
                arguments += [name, value]
        log.info("bin/pipeline %s", " ".join(arguments))
        with tempfile.TemporaryFile() as result:
            # Not through npx, which does not pass signals on.
            self.process = subprocess.Popen(
                ["node", "bin/pipeline", *arguments],
                cwd=settings["repository"], env=os.environ | {"NO_COLOR": "1"},
                stdin=subprocess.DEVNULL, stdout=result, stderr=subprocess.PIPE,
                start_new_session=True, text=True, encoding="utf-8", errors="replace",
            )
            last = ""
            for line in self.process.stderr:
                last = line.rstrip() or last
                level = {"Warning": logging.WARNING, "Error": logging.ERROR}.get(line.split(":")[0], logging.INFO)
                log.log(level, "%s", line.rstrip())
            code = self.process.wait()
            if code == 2:
                raise AirflowFailException(f"Wrong use or settings, not retried: {last}")
            if code not in (0, 3):
                raise AirflowException(f'"{self.command}" ended with exit code {code}: {last}')
            result.seek(0)
            found = json.load(result)
        if code == 3:
            log.warning("Done, but %s new messages were rejected; all rejects of the lake by reason:", found["rejected"])
            for line in reasons(found["ledger"]):
                log.warning("  %s", line)
        if self.outlets:
            page = str(data / "lake/gold/report.html")
            context["outlet_events"][report_asset].extra = {"page": page, "ledger": found["ledger"]}
        return found if self.keep is None else {name: found[name] for name in self.keep}

    def on_kill(self):
        """On a stop or a timeout: ends the program, which takes up to 3 seconds, or kills it."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def reasons(ledger: list[dict]) -> list[str]:
    return [f"{row['table']} {reason}: {count:,}" for row in ledger for reason, count in row["reasons"].items()]


def alert(context):
    """Called when a task has failed after all retries: alerts in its log, and to the URL in `pinterest_alert_url`."""
    ti = context["ti"]
    text = f"{ti.dag_id} {ti.run_id}: {ti.task_id} failed at try {ti.try_number}: {context.get('exception')}"
    log.error("ALERT %s", text)
    url = Variable.get("pinterest_alert_url", default=None)
    if url:
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()


@task(task_id="rejects")
def show_rejects(cleaned: dict):
    """Logs rejects by reason; skipped without new rejects, so that the grid shows where there were any."""
    if not cleaned["rejected"]:
        raise AirflowSkipException("No new rejects")
    found = reasons(cleaned["ledger"])
    for line in found:
        log.warning("%s", line)
    return {"new": cleaned["rejected"], "all": found}


@task(task_id="ledger")
def delta_ledger():
    """The ledger of the Databricks job."""
    from airflow.providers.databricks.hooks.databricks_sql import DatabricksSqlHook

    hook = DatabricksSqlHook(settings["databricks_connection"], sql_endpoint_name=settings["databricks_warehouse"])
    names = ("table", "messages", "clean", "superseded", "deleted", "rejected")
    columns = ", ".join(f"`{name}`" for name in names)
    rows = hook.get_records(f"SELECT {columns} FROM {settings['databricks_schema']}.ledger")
    return {row[0]: dict(zip(names, row)) for row in rows}


@task(task_id="report", outlets=[report_asset])
def published():
    """Updates the asset once the answers of the Databricks job are checked."""


def behind_text(behind: dict | None) -> str:
    """How far a table is behind MySQL: `0 s`, or `4 s, 2,100 bytes`; `unknown` if its log is not followed."""
    if behind is None:
        return "unknown"
    if behind["bytes"] == 0:
        return "0 s"
    seconds = "unknown s" if behind["seconds"] is None else f"{behind['seconds']} s"
    return f"{seconds}, {behind['files']}+ files" if behind["bytes"] is None else f"{seconds}, {behind['bytes']:,} bytes"


@task(retries=0)
def check(state: dict, cleaned: dict | None):
    """Fails if the ledger is not balanced, or rejects, lag or delay exceed a limit. Retries would not help."""
    params = get_current_context()["params"]
    wrong = []
    for table, row in state.items():
        messages, clean, superseded, deleted, rejected = (
            int(row[name]) for name in ("messages", "clean", "superseded", "deleted", "rejected")
        )
        sums = (
            f"{messages:,} messages, {clean:,} clean + {superseded:,} superseded + {deleted:,} deleted"
            f" + {rejected:,} rejected"
        )
        share = rejected / max(1, messages)
        log.info("%s: %s; lag %s; behind MySQL %s", table, sums, row.get("lag"), behind_text(row.get("behind")))
        # The program counts landed messages, too; its "balanced" is about cleaned ones.
        if not row.get("balanced", messages == clean + superseded + deleted + rejected):
            wrong.append(f"the ledger of {table} is not balanced: {sums}")
        if share > params["max_reject_share"]:
            wrong.append(f"{share:.2%} of all {table} messages are rejects, over {params['max_reject_share']:.2%}")
        if "lag" not in row:
            continue  # the Databricks job reads everything that was there when it started
        if row["lag"] is None:
            wrong.append(f"the lag of {table} is unknown, because Kafka is unavailable")
        elif row["lag"] > params["max_lag"]:
            wrong.append(f"{row['lag']} offsets of {table} wait to be cleaned, over {params['max_lag']}")
    share = cleaned["rejected"] / max(1, cleaned["messages"]) if cleaned else 0
    if share > params["max_reject_share"]:
        wrong.append(f"{share:.2%} of this run's messages are rejects, over {params['max_reject_share']:.2%}")
    limit = params["max_behind_seconds"]
    for table, row in state.items():
        seconds = (row.get("behind") or {}).get("seconds")
        if limit is not None and seconds is not None and seconds > limit:
            wrong.append(f"{table} is {seconds} s behind MySQL, over {limit} s")
    if wrong:
        raise AirflowFailException("; ".join(wrong))


with DAG(
    "pinterest",
    description="MySQL to Kafka to clean Parquet, exactly once",
    schedule=settings["schedule"],
    start_date=datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=datetime.timedelta(minutes=3 * settings["timeout_minutes"]),
    default_args={
        "retries": settings["retries"],
        "retry_delay": datetime.timedelta(seconds=settings["retry_seconds"]),
        "execution_timeout": datetime.timedelta(minutes=settings["timeout_minutes"]),
        "on_failure_callback": alert,
    },
    params={
        "creds": Param(settings["creds"], type=["null", "string"], description="db_creds.yaml to use"),
        "wait": Param(settings["wait"], type="integer", minimum=0, description="seconds to wait for an unavailable service"),
        "max_reject_share": Param(settings["max_reject_share"], type="number", minimum=0, maximum=1),
        "max_lag": Param(settings["max_lag"], type="integer", minimum=0, description="offsets that may wait, by table"),
        "max_behind_seconds": Param(settings["max_behind_seconds"], type=["null", "number"], minimum=0, description="how far posting may be behind MySQL"),
    },
    doc_md=__doc__,
    tags=["pinterest"],
) as dag:
    post = Program(task_id="post", command="post", keep=("posted",))
    if on_databricks:
        # Imported here, so that cleaning with the program does not need the provider.
        from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator

        clean = DatabricksRunNowOperator(
            task_id="clean", job_name=settings["databricks_job"],
            databricks_conn_id=settings["databricks_connection"], deferrable=True,
            # The job does not know the params of this DAG.
            forward_dag_params=False,
        )
        state, cleaned, report = delta_ledger(), None, published()
    else:
        clean = Program(task_id="clean", command="clean", keep=("messages", "rejected", "ledger"))
        ledger = Program(task_id="ledger", command="status")
        report = Program(task_id="report", command="report", keep=("ledger", "matches", "sources"), outlets=[report_asset])
        state, cleaned = ledger.output, clean.output
        show_rejects(cleaned)
    post >> clean >> state.operator
    check(state, cleaned) >> report
