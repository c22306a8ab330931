"""Names of the environment variables between cloud.up and the launcher, free of imports that start MiniStack."""

HANDLER_ENV = "RISKMILL_HANDLER_ENV"
"""JSON object of further environment variables for every Lambda handler."""

ARTEFACTS = "RISKMILL_ARTEFACTS"
"""Folder where the artefacts of functions and layers are extracted."""
TTL_SECONDS = "RISKMILL_TTL_SECONDS"
"""Seconds between two looks for items that DynamoDB's TTL deletes."""
