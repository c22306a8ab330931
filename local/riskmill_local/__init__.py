"""The embedded cloud: MiniStack with our patches, a real Valkey or Redis, and the real template deployed to them by sam."""
