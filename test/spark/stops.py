"""Runs the job again and again in one session, and breaks it off at each of its steps on one table in turn.

    spark-submit stops.py FOLDER_OF_PIPELINE TABLE [what pipeline.py takes]
"""

import itertools
import sys

folder, broken_table = sys.argv[1:3]
del sys.argv[1:3]
sys.path.insert(0, folder)
import pipeline  # noqa: E402


class Broken(Exception):
    pass


waiting = [""]


def step(name: str, table: str) -> None:
    if (name, table) == (waiting[0], broken_table):
        raise Broken


pipeline.step = step
stops = 0
for waiting[0] in itertools.cycle(["counting", "rejecting", "merging", "deleting", "finishing", "finished"]):
    try:
        pipeline.main()
        break
    except Broken:
        stops += 1
        print(f"broken off at {waiting[0]}", file=sys.stderr, flush=True)
print(f"done after {stops} stops", file=sys.stderr, flush=True)
