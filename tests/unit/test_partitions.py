import numpy as np
import pytest

from riskmill.jobs import job_key, object_name
from riskmill.partitions import PARTITIONS, by_partition, imbalance, outputs_hash, outputs_set, partition_prefix


def test_a_partitions_set_and_hash_live_in_a_slot_of_their_own() -> None:
    """Redis Cluster hashes what stands in the first braces only."""
    assert outputs_set(0xAB) == "outputs:{ab}"
    assert outputs_hash(0xAB) == "expiring:{ab}"


def test_small_partitions_have_two_digits() -> None:
    assert outputs_set(0) == "outputs:{00}"
    assert partition_prefix(15) == "parts/0f/"


def test_outputs_spread_evenly_over_the_256_prefixes_of_s3() -> None:
    """Real keys of jobs that differ in one number, as a portfolio's do.

    Of 100,000 keys in 256 cells, each cell holds 391 give or take 20: the fullest is within five of these, and the
    whole is what chance gives (chi-square with 255 degrees of freedom: 255 give or take 22.6).
    """
    keys = [job_key("price_deal", 1, {"deal": number}, ["p:" + "00" * 16]) for number in range(100_000)]
    counts = np.zeros(PARTITIONS, dtype=np.int64)
    for key in keys:
        counts[int(key[:2], 16)] += 1
        assert object_name(f"p:{key}").startswith(partition_prefix(int(key[:2], 16)))
    assert imbalance(counts.tolist()) < 1.26
    mean = len(keys) / PARTITIONS
    chi_square = float(((counts - mean) ** 2 / mean).sum())
    assert 255 - 5 * 22.6 < chi_square < 255 + 5 * 22.6


def test_a_prefix_is_the_same_in_every_run_so_that_s3_keeps_its_partitions_split() -> None:
    key = job_key("price_deal", 1, {"deal": 1}, [])
    assert object_name(f"p:{key}") == f"parts/{key[:2]}/{key}"
    assert not any(part.isdigit() and len(part) == 8 for part in object_name(f"p:{key}").split("/")[:-1])  # no date


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
