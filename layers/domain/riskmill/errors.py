"""Every error that riskmill raises on purpose.

The class names are part of the state machines: ASL's Retry and Catch match on them.
"""


class RiskmillError(Exception):
    """Base of all errors that riskmill raises on purpose."""


class PortfolioInvalid(RiskmillError):
    """A portfolio has faults; `faults` lists every one of them. Never retried."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        shown = "; ".join(faults[:10])
        more = f" (+{len(faults) - 10} more)" if len(faults) > 10 else ""
        super().__init__(f"{len(faults)} fault(s): {shown}{more}")


class ModelError(RiskmillError):
    """A job failed for its own reason (bad data, a term that a model does not know). Never retried."""


class MissingInput(RiskmillError):
    """An object that a job reads is not there any more; `ref` names it. The job is planned again."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        super().__init__(f"input {ref} does not exist")


class GraphCycle(RiskmillError):
    """A graph of jobs or groups has a cycle; `members` names it in order."""

    def __init__(self, members: list[str]) -> None:
        self.members = members
        super().__init__("cycle: " + " -> ".join(members))


class RunCancelled(RiskmillError):
    """The run was cancelled; whatever of it still runs stops. Never retried."""


class TransientError(RiskmillError):
    """A throttle, a 503 or a network fault outlived the client's own retries. ASL retries it with backoff."""


class AccessRefused(RiskmillError):
    """AWS refused an action that the role should allow: a fault of the deployment, not of a job. Never retried."""
