"""What several tests use; no test imports from another."""
