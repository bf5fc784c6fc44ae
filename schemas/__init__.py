"""Events: what is written to each topic, and how its bytes are read."""
