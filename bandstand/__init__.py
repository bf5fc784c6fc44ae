"""Bandstand: a streaming learning pipeline for contextual bandits on Kafka."""

from importlib.metadata import version

__version__ = version("bandstand")
__all__ = ["__version__"]
