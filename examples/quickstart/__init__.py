"""The quickstart: five background jobs on a small API and a database. Run it with ``python -m examples.quickstart``."""
