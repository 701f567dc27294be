"""A FastAPI application with a background job. See README.md."""
