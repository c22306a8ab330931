"""The `riskmill` command."""
