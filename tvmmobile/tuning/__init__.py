"""Search, records, and the plan that follows from them."""
