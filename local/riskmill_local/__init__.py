"""The embedded cloud: MiniStack with our patches, a real Valkey or Redis, the real template deployed by sam."""
