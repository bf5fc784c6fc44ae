"""Decisions in a service, from live snapshots.

>>> from bandstand.serving import Client, RewardProducer
"""

from bandstand.serving.client import Client, Decision
from bandstand.serving.models import Fallback
from bandstand.serving.rewards import RewardProducer

__all__ = ["Client", "Decision", "Fallback", "RewardProducer"]
