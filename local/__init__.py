"""Real servers on this machine: Kafka, S3, schema registry."""

from bandstand.local.apicurio import Apicurio
from bandstand.local.kafka import Kafka
from bandstand.local.parts import Progress
from bandstand.local.seaweedfs import SeaweedFS

__all__ = ["Apicurio", "Kafka", "Progress", "SeaweedFS"]
