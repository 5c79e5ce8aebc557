"""Corelane and Apache Kafka on the same work in one run. `scripts/compare-kafka` is the way in; see benches/README.md."""
