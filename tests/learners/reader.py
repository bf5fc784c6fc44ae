"""Read a snapshot and decide by it, with nothing of Bandstand: python reader.py SCHEMA SNAPSHOT.

A stranger's program: fastavro and numpy only. Prints, for a subject whose feature columns stand on
standard input, the mean and standard deviation of each action's scaled reward.
"""

import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np


def main() -> None:
    """Do it."""
    schema = fastavro.parse_schema(json.loads(Path(sys.argv[1]).read_text()))
    with Path(sys.argv[2]).open("rb") as file:
        assert file.read(2) == b"\xc3\x01"  # Avro's single-object encoding
        file.read(8)  # fingerprint of the schema
        snapshot: Any = fastavro.schemaless_reader(file, schema, None)
    read = [np.frombuffer(a["data"], "<f8").reshape(a["shape"]) for a in snapshot["arrays"]]
    arrays = {array["name"]: values for array, values in zip(snapshot["arrays"], read, strict=True)}
    columns = json.load(sys.stdin)
    x = np.array([columns[name] for name in snapshot["features"]])
    factor = np.zeros((len(snapshot["actions"]), len(x), len(x)))
    factor[:, *np.tril_indices(len(x))] = arrays["factor"]
    deviations = snapshot["parameters"]["exploration"] * np.linalg.norm(factor @ x, axis=1)
    answer = zip(
        snapshot["actions"], (arrays["mean"] @ x).tolist(), deviations.tolist(), strict=True
    )
    json.dump({"version": snapshot["version"], "actions": list(answer)}, sys.stdout)


if __name__ == "__main__":
    main()
