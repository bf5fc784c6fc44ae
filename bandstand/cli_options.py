"""What every command is given before its name, and the options that many share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bandstand.settings import Settings, load_settings

__all__ = ["Json", "given"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass
class _Given:
    config: Path | None = None
    debug: bool = False

    def settings(self) -> Settings:
        return load_settings(self.config)


given = _Given()
"""What stood before the command; filled in by `cli`."""
