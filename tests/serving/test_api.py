from __future__ import annotations

import subprocess
import sys

import bandstand.serving


def test_public_names_are_sorted_and_there() -> None:
    """What the package offers is listed in order, and nothing else is offered by accident."""
    names = bandstand.serving.__all__
    assert names == sorted(names)
    offered = {
        name for name, it in vars(bandstand.serving).items() if getattr(it, "__module__", "")
    }
    assert {name for name in offered if not name.startswith("_")} == set(names)


def test_importing_it_brings_no_stream_processor_into_a_service() -> None:
    """A service that decides doesn't load Faust, boto3 or the command line."""
    heavy = "faust mode aiokafka boto3 typer bandstand.streams"
    code = f"import sys, bandstand.serving; print(*set({heavy!r}.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
