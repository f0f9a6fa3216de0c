"""Reads sources in a process of its own, since huggingface_hub reads its environment when it is
imported.

Takes one JSON object on standard input: {sources: names, data_root, languages: kept ones or null,
web: address that stands for the web, revisions: {module: revision}, pauses}. Prints {source: {rows:
[...], bad: [...], inputs: [...]} or {error}}.
"""

import dataclasses
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from hybridbatch.common import retries as patience
from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.records import BadRow
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import source

WEB = {"entityquestions": "dataset.zip", "xor_tydi": "tydi_xor_gp.zip", "mintaka": "mintaka_train.json",
       "mkqa": "mkqa.jsonl.gz", "squadshifts": "datasets"}  # fmt: skip


def read(name: str, context: SourceContext) -> dict[str, Any]:
    try:
        inputs = [f"{path.parent.name}/{path.name}" for path in source(name).inputs(context)]
        items = list(source(name).rows(context))
    except HybridBatchError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    rows = [item._asdict() for item in items if not isinstance(item, BadRow)]
    bad = [dataclasses.astuple(item) for item in items if isinstance(item, BadRow)]
    return {"rows": rows, "bad": bad, "inputs": inputs}


def main() -> None:
    job = json.load(sys.stdin)
    for module, file in WEB.items():
        import_module(f"hybridbatch.data.sources.{module}").ADDRESS = f"{job['web']}/{file}"
    for module, revision in job.get("revisions", {}).items():
        loaded = import_module(f"hybridbatch.data.sources.{module}")
        loaded.HUB = dataclasses.replace(loaded.HUB, revision=revision)
    patience.PAUSES = tuple(job.get("pauses", patience.PAUSES))
    time.sleep = lambda seconds: None  # the hub's client waits between its own tries
    languages = job.get("languages")
    root = job.get("data_root")
    context = SourceContext(
        data_root=Path(root) if root else None,
        keeps=lambda language: languages is None or language in languages,
    )
    print(json.dumps({name: read(name, context) for name in job["sources"]}))


if __name__ == "__main__":
    main()
