"""What becomes of a batch that its workers do not survive. Pure; the steps are in statemachines/risk_rollup.asl.json.

Lambda's clock or memory ends it -> Fargate; its task is killed -> a larger task; twice killed -> split in half, until
the poison job stands alone, which then fails by itself. Pieces are ranges of the batch's own jobs file.
"""

from collections.abc import Mapping
from typing import Any

#: Deaths of workers at a batch before its next worker refuses it: one, then it goes to a larger task; two there (or of
#: a job alone) are enough.
PATIENCE, LAST_PATIENCE = 1, 2

#: What is said of a job that no worker survives.
KILLS = "kills its workers"

#: Seconds that a message may wait for a worker, or for its next heartbeat, before nobody waits for it any more.
HEARTBEAT_SECONDS = 3_600


def rules(item: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, object]:
    """Return what the state machine and the workers must know of a planned item besides where it runs."""
    return {
        "escalate": options.get("compute") != "lambda",
        "patience": LAST_PATIENCE if item.get("size") == "large" else PATIENCE,
        "heartbeat_seconds": int(options.get("heartbeat_seconds", HEARTBEAT_SECONDS)),
    }


def split_item(item: Mapping[str, Any], lines: bytes) -> list[dict[str, Any]]:
    """Cut an item in half by its jobs; `lines` are its jobs as they stand in its file. One job cannot be cut: []."""
    jobs = lines.split(b"\n")
    if len(jobs) == 1:
        return []
    half = len(jobs) // 2
    middle = int(item["start"]) + sum(len(line) + 1 for line in jobs[:half])
    pieces = []
    for name, count, start, end in (
        ("a", half, int(item["start"]), middle - 1),
        ("b", len(jobs) - half, middle, int(item["end"])),
    ):
        seconds = round(float(item.get("seconds", 0.0)) * count / len(jobs), 3)
        pieces.append(
            dict(item)
            | {"batch_id": f"{item['batch_id']}{name}", "jobs": count, "seconds": seconds, "start": start, "end": end}
            | {"patience": LAST_PATIENCE if count == 1 else PATIENCE, "why": "split: the batch killed its workers"}
        )
    return pieces
