"""Models of your own, one file each: whatever is put here is registered and deployed (docs/model-sdk.md)."""
