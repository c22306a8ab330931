import pytest

from riskmill.partitions import by_partition, imbalance, outputs_set, plan_set


def test_a_plans_set_lives_in_the_same_slot_as_the_outputs_of_its_partition() -> None:
    """Redis Cluster hashes what stands in the first braces only."""
    outputs, plan = outputs_set(0xAB), plan_set(0xAB, "run-1")
    assert outputs == "outputs:{ab}"
    assert plan == "plan:{ab}:run-1"
    assert outputs[outputs.index("{") : outputs.index("}")] == plan[plan.index("{") : plan.index("}")]


def test_small_partitions_have_two_digits() -> None:
    assert outputs_set(0) == "outputs:{00}"
    assert plan_set(15, "r") == "plan:{0f}:r"


def test_keys_are_grouped_by_their_first_byte() -> None:
    low, high, other = b"\x00" * 16, b"\xff" * 16, b"\xff" + b"\x01" * 15
    assert by_partition([high, low, other]) == {255: [high, other], 0: [low]}
    assert by_partition([]) == {}


@pytest.mark.parametrize("key", [b"", b"\x00" * 15, b"\x00" * 17, b"ab" * 16])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        by_partition([key])


def test_imbalance_is_the_fullest_partition_over_the_mean() -> None:
    assert imbalance([5, 5, 5, 5]) == 1.0
    assert imbalance([8, 0, 0, 0]) == 4.0
    assert imbalance([0, 0]) == 1.0
