"""Checks the bundle's job, given as a JSON file, with Databricks' classes, and its parameters against those of the job."""

import json
import sys
from pathlib import Path

from databricks.bundles.core import Resources
from databricks.bundles.jobs import Job

deploy = Path(sys.argv[1])
sys.path.insert(0, str(deploy))
sys.dont_write_bytecode = True
import pipeline  # noqa: E402

given = json.loads(Path(sys.argv[2]).read_text())
parameters = [task["spark_python_task"]["parameters"] for task in given["tasks"]]
job = Job.from_dict(given)
Resources().add_job("pinterest", job)
for task, arguments in zip(job.tasks, parameters):
    assert (deploy / task.spark_python_task.python_file).samefile(pipeline.__file__)
    assert task.job_cluster_key in [cluster.job_cluster_key for cluster in job.job_clusters]
    sys.argv[1:] = arguments
    print(json.dumps(vars(pipeline.arguments())))
