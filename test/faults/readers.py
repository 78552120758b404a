"""Reads silver by pyarrow again and again until stdin is closed, as somebody's notebook would, then tells as JSON how
often, how many reads failed, and what was seen that must never be seen. Run as: readers.py SILVER [deletes], where
rows may vanish by deletes."""

import json
import os
import select
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

silver = sys.argv[1]
deletes = sys.argv[2:] == ["deletes"]
tables = ("pin", "geo", "user")
seen = {table: pa.array([], pa.int64()) for table in tables}
reads, errors, wrong = 0, {}, []
while not select.select([sys.stdin], [], [], 0.4)[0]:
    for table in tables:
        folder = os.path.join(silver, table)
        if not os.path.isdir(folder) or not any(name.endswith(".parquet") for name in os.listdir(folder)):
            continue
        try:
            ind = pq.read_table(folder, columns=["ind", "_offset"])["ind"]
        except Exception as error:  # a file was replaced meanwhile: a reader may get an error, and reads again
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            continue
        reads += 1
        doubled = len(ind) - len(pc.unique(ind))
        gone = pc.sum(pc.invert(pc.is_in(seen[table], value_set=ind.combine_chunks()))).as_py() or 0
        if doubled or (gone and not deletes):
            wrong.append(f"pyarrow saw {doubled} doubled and {gone} vanished inds in {table}")
        seen[table] = ind.combine_chunks()
print(json.dumps({"reads": reads, "errors": sum(errors.values()), "wrong": wrong}))
