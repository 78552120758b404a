#!/usr/bin/env bash
# A local Airflow with the DAG, on 127.0.0.1 only: "local.sh install" once, then "local.sh start" until Ctrl+C.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pinterest-data-pipeline
version=3.3.2
venv=$cache/airflow-$version

install() {
  mkdir -p "$cache"
  [ -x "$venv/bin/uv" ] || { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q --no-cache-dir uv==0.13.9; }
  "$venv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" --constraint "$here/constraints.txt" \
    "apache-airflow==$version" "$@"
  echo "Airflow $version is in $venv"
}

start() {
  [ -x "$venv/bin/airflow" ] || { echo "Airflow is not installed: run \"$0 install\" first" >&2; exit 2; }
  local port=${PORT:-8080}
  export PATH="$venv/bin:$PATH" AIRFLOW_HOME=${AIRFLOW_HOME:-$cache/airflow}
  export AIRFLOW__CORE__DAGS_FOLDER=$here AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__PARALLELISM=2
  export AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT=$port AIRFLOW__API__BASE_URL=http://127.0.0.1:$port
  # The default timeout of 5 s is too short for a busy machine: the task would fail and be retried.
  export AIRFLOW__API__WORKERS=1 AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=120
  # Private, because it holds the password.
  mkdir -p "$AIRFLOW_HOME" && chmod 700 "$AIRFLOW_HOME"
  echo "Preparing Airflow's database in $AIRFLOW_HOME"
  airflow db migrate >"$AIRFLOW_HOME/migrate.log" 2>&1 || { cat "$AIRFLOW_HOME/migrate.log" >&2; exit 1; }
  # Not "airflow standalone": it serves logs on all addresses, prints the password, and leaves children behind.
  # Each part has a separate process group, which contains its tasks.
  local groups=() name
  trap 'trap "" INT TERM; stop "${groups[@]}"' EXIT
  trap 'exit 0' INT TERM
  set -m
  for part in "scheduler --skip-serve-logs" "triggerer --skip-serve-logs" dag-processor api-server; do
    name=${part%% *}
    # shellcheck disable=SC2086
    airflow $part >"$AIRFLOW_HOME/$name.log" 2>&1 </dev/null &
    groups+=($!)
  done
  set +m
  echo "Airflow is starting on http://127.0.0.1:$port; Ctrl+C stops it"
  echo "User admin, password in $AIRFLOW_HOME/simple_auth_manager_passwords.json.generated; logs are in $AIRFLOW_HOME"
  wait -n || true
  echo "A part of Airflow ended; see the logs in $AIRFLOW_HOME" >&2
  exit 1
}

# Gives tasks 20 s to stop their programs, then kills the rest, and waits until all have ended.
stop() {
  local signal group tries
  for signal in TERM KILL; do
    for group; do kill "-$signal" -- "-$group" 2>/dev/null || true; done
    for tries in {1..100}; do
      for group; do kill -0 -- "-$group" 2>/dev/null && { sleep 0.2; continue 2; }; done
      return 0
    done
  done
}

case "${1:-} $#" in
  install\ *) install "${@:2}" ;;
  "start 1") start ;;
  *) echo "Usage: $0 install [package ...] | start" >&2; exit 2 ;;
esac
