"""Examples of bgjobs, each a package with a README; run them from the root of the repository."""
