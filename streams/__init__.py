"""Roles on Kafka: topics, join, learn, publish."""
