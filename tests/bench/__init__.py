"""The benchmark: CPU and memory of sidecar beside its neighbours (`python -m tests.bench`)."""
