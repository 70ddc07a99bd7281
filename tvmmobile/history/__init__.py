"""Results of many commits in one file, the steps in their latencies, and a page of them."""
