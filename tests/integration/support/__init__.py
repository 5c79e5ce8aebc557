"""What the suites share: brokers as processes, the wire format by hand, Kafka's Java tools, load."""
