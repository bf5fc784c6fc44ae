"""Real servers on this machine: Kafka, S3, schema registry."""
