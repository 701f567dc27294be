"""The orders of a shop, and the jobs that look after them."""
