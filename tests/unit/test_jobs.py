"""Keys name outputs for ever, so their digests are pinned here: a change of key must be made on purpose."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.jobs import Job, KeyMaker, canonical, content_key, job_key, object_name, ref_of

ELT = "i:" + "11" * 16
YET = "p:" + "22" * 16
TERMS = {"layers": [{"type": "CXL", "occurrence_retention": 1e6, "occurrence_limit": 5e6, "reinstatements": [1.0]}]}

#: model, version, parameters, inputs -> key. Written down once; never computed.
PINNED: list[tuple[str, int, Any, list[str], str]] = [
    (
        "simulate_years",
        1,
        {"seed": 7, "first_trial": 0, "trials": 100_000},
        ["i:" + "00" * 16],
        "a008d1f954f57afc122405353e41f522",
    ),
    ("price_deal", 1, TERMS, [ELT, YET], "a1d9a95396a980097bbc3cf213ccada8"),
    ("roll_up", 1, {"keep_members": True}, [YET, "p:" + "33" * 16], "c9fdb26f52e76258412937202d671017"),
    ("roll_up", 1, {"keep_members": False}, [YET, "p:" + "33" * 16], "4f1f82768d689ef786a3a2ecc2ba7a1c"),
    (
        "measure",
        1,
        {"blocks": 1, "perspective": "gross", "tail": 0.99},
        [YET, "p:" + "44" * 16],
        "882adaa8857b17a5591f86617c4d6039",
    ),
    ("tabulate_deals", 1, {}, [], "a1defabd92902f9db274f35266360feb"),
    ("price_deal", 1, {"name": "Zürich Rück"}, [ELT, YET], "506491f37ac9407de21f682c8c8e6778"),
]


@pytest.mark.parametrize(("model", "version", "params", "inputs", "key"), PINNED)
def test_a_key_is_the_one_written_down_here(model: str, version: int, params: Any, inputs: list[str], key: str) -> None:
    assert job_key(model, version, params, inputs) == key


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"", "dec6b9215c172e515320b3f3c38c552f"),
        (b"riskmill", "a7e17cf27b4248144d3fc7c11bcdbd50"),
        (b"\0" * 1000, "519406069eb6bf330a568d810cd22b6f"),
    ],
)
def test_the_key_of_an_input_is_the_one_written_down_here(data: bytes, key: str) -> None:
    assert content_key(data) == key


BASE: dict[str, Any] = {"model": "price_deal", "version": 1, "params": {"a": 1, "b": [1, 2]}, "inputs": [ELT, YET]}

#: What makes another job of BASE.
DIFFERENT: dict[str, dict[str, Any]] = {
    "another model": {"model": "price_deals"},
    "another version": {"version": 2},
    "a number that was a text": {"params": {"a": "1", "b": [1, 2]}},
    "a float that was an integer": {"params": {"a": 1.0, "b": [1, 2]}},
    "true that was one": {"params": {"a": True, "b": [1, 2]}},
    "null that was one": {"params": {"a": None, "b": [1, 2]}},
    "another order of a list": {"params": {"a": 1, "b": [2, 1]}},
    "a nested list": {"params": {"a": 1, "b": [[1, 2]]}},
    "another name of a parameter": {"params": {"A": 1, "b": [1, 2]}},
    "one parameter more": {"params": {"a": 1, "b": [1, 2], "c": None}},
    "a parameter less": {"params": {"b": [1, 2]}},
    "no parameters": {"params": {}},
    "another order of inputs": {"inputs": [YET, ELT]},
    "an output in place of an input of the same key": {"inputs": ["p:" + ELT[2:], YET]},
    "one input less": {"inputs": [ELT]},
    "the same input twice": {"inputs": [ELT, YET, YET]},
    "no input": {"inputs": []},
    "another engine": {"abi": "riskmill-engine-x"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_job_has_another_key(name: str) -> None:
    changed = DIFFERENT[name]
    assert job_key(**BASE | changed) != job_key(**BASE)


def test_all_these_jobs_have_keys_of_their_own() -> None:
    keys = [job_key(**BASE), *(job_key(**BASE | changed) for changed in DIFFERENT.values())]
    assert len(set(keys)) == len(keys)


def test_the_order_in_which_parameters_are_named_does_not_matter() -> None:
    assert job_key(**BASE | {"params": {"b": [1, 2], "a": 1}}) == job_key(**BASE)


def test_text_moved_from_one_field_to_the_next_makes_another_key() -> None:
    """Lengths are hashed with the fields, so no two jobs spell the same bytes."""
    assert job_key("ab", 1, {}, []) != job_key("a", 1, {}, [], abi="riskmill-engine-1b")
    assert job_key("price_deal1", 1, {}, []) != job_key("price_deal", 11, {}, [])


def test_an_input_is_not_hashed_like_a_job() -> None:
    assert content_key(canonical({})) != job_key("", 0, {}, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ModelError, match="cannot be part of a key"):
        job_key("price_deal", 1, {"retention": [value]}, [])


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), "\ud800"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="cannot be part of a key"):
        job_key("price_deal", 1, {"value": value}, [])


def test_a_key_maker_gives_the_same_keys_as_job_key() -> None:
    maker = KeyMaker("price_deal", 1, canonical(TERMS))
    refs = [ELT, YET]
    packed = b"".join(ref[0].encode() + bytes.fromhex(ref[2:]) for ref in refs)
    assert maker.key(packed).hex() == job_key("price_deal", 1, TERMS, refs)
    assert maker.key(packed) == maker.key(packed), "a key does not change the maker"


@given(st.binary(min_size=16, max_size=16), st.sampled_from("ip"))
def test_a_reference_comes_back_from_its_objects_name(key: bytes, kind: str) -> None:
    ref = f"{kind}:{key.hex()}"
    name = object_name(ref)
    assert ref_of(name) == ref
    assert name.split("/")[1] == key.hex()[:2]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "parts",
        "parts/ab",
        "parts/ab/",
        "parts/ab/" + "ab" * 15,
        "parts/ab/" + "ab" * 17,
        "parts/cd/" + "ab" * 16,
        "parts/AB/" + "AB" * 16,
        "parts/zz/" + "zz" * 16,
        "parts/ab/ab" + " " * 30,
        "parts/ab/" + "ab" * 16 + "/x",
        "parts/ab/" + "ab" * 16 + "\n",
        "x/parts/ab/" + "ab" * 16,
        "runs/ab/" + "ab" * 16,
        "portfolios/" + "ab" * 16 + ".json",
    ],
)
def test_any_other_name_has_no_reference(name: str) -> None:
    assert ref_of(name) is None


def test_outputs_spread_evenly_over_the_256_prefixes() -> None:
    prefixes = [job_key("price_deal", 1, {"n": n}, [ELT])[:2] for n in range(25_600)]
    counts = [prefixes.count(f"{byte:02x}") for byte in range(256)]
    assert min(counts) > 50
    assert max(counts) < 160


def test_a_job_comes_back_from_its_json() -> None:
    job = Job("ab" * 16, "price_deal", 1, TERMS, (ELT, YET), 123.5)
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert job.ref == "p:" + "ab" * 16
