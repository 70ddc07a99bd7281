"""Whether latency has become worse."""
