"""Decide by a snapshot without Bandstand: python reader.py SCHEMA SNAPSHOT < feature columns."""

import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np


def main() -> None:
    """Print mean and standard deviation of each action's scaled reward (linear_thompson)."""
    schema = fastavro.parse_schema(json.loads(Path(sys.argv[1]).read_text()))
    with Path(sys.argv[2]).open("rb") as file:
        assert file.read(10)[:2] == b"\xc3\x01"  # single-object encoding: mark, fingerprint
        snapshot: Any = fastavro.schemaless_reader(file, schema, None)
    read = {a["name"]: np.frombuffer(a["data"], "<f8") for a in snapshot["arrays"]}
    columns = json.load(sys.stdin)
    x = np.array([columns[name] for name in snapshot["features"]])
    factor = np.zeros((len(snapshot["actions"]), len(x), len(x)))
    factor[:, *np.tril_indices(len(x))] = read["factor"].reshape(len(factor), -1)
    means = read["mean"].reshape(len(factor), -1) @ x
    deviations = snapshot["parameters"]["exploration"] * np.linalg.norm(factor @ x, axis=1)
    answer = zip(snapshot["actions"], means.tolist(), deviations.tolist(), strict=True)
    json.dump({"version": snapshot["version"], "actions": list(answer)}, sys.stdout)


if __name__ == "__main__":
    main()
