import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from mock_cloud import free_port, valkey
from riskmill.aws.index import CHUNK, ExpiringIndex, OutputIndex
from riskmill.errors import TransientError

#: No second try, so that a fault shows at once.
ONCE = Retry(NoBackoff(), 0)


def keys_of(count: int, seed: int = 0) -> list[bytes]:
    data = np.random.default_rng(seed).bytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def matrix(keys: list[bytes]) -> Any:
    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)


class Expiring(ExpiringIndex):
    """The hash index, given keys without times: they expire in an hour."""

    def _setting(self, keys: Any) -> Any:
        keys = list(keys)
        return super()._setting(keys if not keys else dict.fromkeys(keys, int(time.time()) + 3600))


@pytest.fixture(params=["dynamodb", "hashfield"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both ways in which keys leave the cache; most tests are the same for both."""
    return str(request.param)


@pytest.fixture
def cache(mode: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of a real server that can do the mode, emptied before and after."""
    with Redis(port=request.getfixturevalue("valkey_port" if mode == "dynamodb" else "valkey_9_port")) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def index(mode: str, cache: Any) -> OutputIndex:
    return OutputIndex(cache) if mode == "dynamodb" else Expiring(cache)


def test_only_what_was_added_is_found(index: OutputIndex, cache: Any) -> None:
    keys = keys_of(1000)
    index.add(keys[::3])
    assert index.look_up(matrix(keys)).tolist() == [n % 3 == 0 for n in range(1000)]
    assert index.count() == 334


def test_an_empty_cache_knows_nothing(index: OutputIndex) -> None:
    assert not index.look_up(matrix(keys_of(10))).any()
    assert index.count() == 0


def test_no_keys_need_no_server() -> None:
    index = OutputIndex(Redis(port=free_port()))
    index.add([])
    index.remove([])


def test_the_look_up_only_reads(index: OutputIndex, cache: Any) -> None:
    """Nothing of a plan is left behind by a planner that dies, a replica can answer, and runs cannot meet."""
    keys = keys_of(2000)
    index.add(keys[:1000])
    before = cache.info("stats")["total_commands_processed"], cache.lastsave(), cache.info("persistence")
    changes = before[2]["rdb_changes_since_last_save"]
    index.look_up(matrix(keys))
    assert cache.info("persistence")["rdb_changes_since_last_save"] == changes
    assert len(cache.keys("*")) == len({key[0] for key in keys[:1000]})


def test_what_is_removed_is_not_found_any_more(index: OutputIndex) -> None:
    keys = keys_of(300)
    index.add(keys)
    index.remove(keys[:100])
    index.remove(keys[:100])
    assert np.flatnonzero(index.look_up(matrix(keys))).tolist() == list(range(100, 300))


def test_adding_twice_is_adding_once(index: OutputIndex) -> None:
    keys = keys_of(50)
    index.add(keys)
    index.add(keys)
    assert index.add_some(keys) == set()
    assert index.count() == 50


def test_a_partition_with_more_keys_than_one_command_takes_is_found_whole(index: OutputIndex) -> None:
    keys = [b"\xab" + n.to_bytes(15) for n in range(2 * CHUNK + 7)]
    index.add(keys)
    assert index.count() == len(keys)
    assert index.look_up(matrix(keys)).all()
    index.remove(keys)
    assert index.count() == 0


def test_a_hundred_thousand_keys_are_looked_up_at_once(index: OutputIndex) -> None:
    keys = keys_of(100_000)
    index.add(keys[:60_000])
    found = index.look_up(matrix(keys))
    assert found[:60_000].all()
    assert not found[60_000:].any()


def test_keys_of_a_partition_that_cannot_be_written_are_returned_and_the_others_added(
    index: OutputIndex, cache: Any
) -> None:
    cache.set(index._name(0xAB), "somebody's string")
    bad, good = [b"\xab" * 16, b"\xab" + b"\x01" * 15], [b"\x00" * 16, b"\xff" * 16]
    assert index.add_some([good[0], *bad, good[1]]) == set(bad)
    cache.delete(index._name(0xAB))
    assert index.look_up(matrix([*good, *bad])).tolist() == [True, True, False, False]


def test_a_partition_that_cannot_be_written_fails_a_whole_add(index: OutputIndex, cache: Any) -> None:
    cache.set(index._name(0xAB), "somebody's string")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        index.add([b"\xab" * 16])


def test_a_key_of_another_length_is_refused_before_anything_is_written(index: OutputIndex) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        index.add([b"\x00" * 16, b"short"])
    assert index.count() == 0


# ---- a server in trouble


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[Any]:
    """A client of a server that this test may break."""
    with valkey(tmp_path) as port, Redis(port=port, retry=ONCE) as client:
        yield client


def test_a_server_that_is_away_is_a_passing_fault(tmp_path: Path) -> None:
    with valkey(tmp_path) as port:
        index = OutputIndex(Redis(port=port, retry=ONCE))
        index.add(keys_of(3))
    for call in (
        lambda: index.look_up(matrix(keys_of(3))),
        lambda: index.add(keys_of(3)),
        lambda: index.remove(keys_of(3)),
        lambda: index.add_some(keys_of(3)),
        lambda: index.count(),
    ):
        with pytest.raises(TransientError, match="cache: "):
            call()


def test_a_full_server_is_a_passing_fault_and_some_keys_are_tried_again(own_cache: Any) -> None:
    index = OutputIndex(own_cache)
    keys = keys_of(3)
    own_cache.config_set("maxmemory", 1)
    with pytest.raises(TransientError, match="cache: "):
        index.add(keys)
    assert index.add_some(keys) == set(keys)


def test_a_replica_that_was_a_primary_is_a_passing_fault(own_cache: Any) -> None:
    """During a failover the old primary answers for a while, and takes no writes."""
    index = OutputIndex(own_cache)
    own_cache.replicaof("127.0.0.1", free_port())
    with pytest.raises(TransientError, match="cache: "):
        index.add(keys_of(3))


def test_a_server_that_does_not_answer_in_time_is_a_passing_fault(own_cache: Any) -> None:
    port = own_cache.get_connection_kwargs()["port"]
    with Redis(port=port, socket_timeout=0.2, retry=ONCE) as impatient:
        own_cache.execute_command("CLIENT", "PAUSE", "2000", "ALL")
        with pytest.raises(TransientError, match="cache: "):
            OutputIndex(impatient).count()


# ---- keys that expire by themselves


def test_a_key_leaves_at_its_time_and_no_other_does(valkey_9_port: int) -> None:
    with Redis(port=valkey_9_port) as client:
        client.flushall()
        index, now = ExpiringIndex(client), int(time.time())
        soon, later, past = keys_of(3)
        index.add({soon: now + 2, later: now + 100, past: now - 5})
        assert index.look_up(matrix([soon, later, past])).tolist() == [True, True, False]
        assert index.has(later) == (True, now + 100)
        assert index.has(past) == (False, None)
        time.sleep(2.5)
        assert index.look_up(matrix([soon, later, past])).tolist() == [False, True, False]
        assert index.members(later[0]) == {later}
        client.flushall()


def test_a_key_that_expires_by_itself_needs_a_time(valkey_9_port: int) -> None:
    with Redis(port=valkey_9_port) as client, pytest.raises(TypeError, match="needs the time"):
        ExpiringIndex(client).add(keys_of(1))


def test_a_key_added_again_stays_for_longer(valkey_9_port: int) -> None:
    with Redis(port=valkey_9_port) as client:
        index, now = ExpiringIndex(client), int(time.time())
        (key,) = keys_of(1)
        index.add({key: now + 50})
        assert index.add_some({key: now + 500}) == set()
        assert index.has(key) == (True, now + 500)
        client.flushall()
