"""Halving a batch that kills its workers: pieces are ranges of the batch's own file."""

from typing import Any

import pytest

from riskmill.escalation import HEARTBEAT_SECONDS, LAST_PATIENCE, PATIENCE, rules, split_item

FILE = b"first batch's job\n" + b"\n".join(f'{{"job": {number}}}'.encode() * (number + 1) for number in range(5))
START = FILE.index(b"\n") + 1


def item(**more: Any) -> dict[str, Any]:
    return {"batch_id": "r0-w0-b1", "jobs": 5, "seconds": 10.0, "start": START, "end": len(FILE), "patience": 2} | more


def jobs_of(piece: dict[str, Any]) -> list[bytes]:
    return FILE[piece["start"] : piece["end"]].split(b"\n")


def test_halves_hold_all_jobs_in_order_and_have_names_of_their_own() -> None:
    whole = item()
    first, second = split_item(whole, FILE[START:])
    assert jobs_of(first) + jobs_of(second) == jobs_of(whole)
    assert [first["jobs"], second["jobs"]] == [2, 3] == [len(jobs_of(first)), len(jobs_of(second))]
    assert [first["batch_id"], second["batch_id"]] == ["r0-w0-b1a", "r0-w0-b1b"]
    assert first["seconds"] + second["seconds"] == pytest.approx(10.0)


def test_halving_ends_with_every_job_alone_and_a_job_alone_is_tried_twice() -> None:
    pieces, alone = [item()], []
    while pieces:
        piece = pieces.pop(0)
        halves = split_item(piece, FILE[piece["start"] : piece["end"]])
        if halves:
            pieces = halves + pieces
        else:
            alone.append(piece)
    assert [jobs_of(piece) for piece in alone] == [[line] for line in jobs_of(item())]
    assert {piece["patience"] for piece in alone} == {LAST_PATIENCE}
    assert len({piece["batch_id"] for piece in alone}) == 5


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ("", {}, (True, PATIENCE, HEARTBEAT_SECONDS)),
        ("standard", {"compute": "auto"}, (True, PATIENCE, HEARTBEAT_SECONDS)),
        ("large", {"compute": "fargate", "heartbeat_seconds": 7}, (True, LAST_PATIENCE, 7)),
        ("", {"compute": "lambda"}, (False, PATIENCE, HEARTBEAT_SECONDS)),
    ],
)
def test_a_run_that_is_to_stay_on_lambda_does_not_escalate(
    size: str, options: dict[str, Any], expected: tuple[bool, int, int]
) -> None:
    assert tuple(rules({"size": size}, options).values()) == expected
