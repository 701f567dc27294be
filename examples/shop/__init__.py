"""A small web shop: an orders API, a worker with its background jobs, and their deployment. See README.md."""
