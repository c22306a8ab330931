"""Objects in the data bucket: a run's files, and outputs that are written once and held in memory while in use."""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from riskmill.aws.clients import client, code_of, translating
from riskmill.errors import MissingInput, TransientError
from riskmill.expiry import is_worn
from riskmill.jobs import object_name, ref_of
from riskmill.outputs import Arrays, decode
from riskmill.partitions import partition_prefix

#: Reads and writes under way at once from one worker: enough to hide S3's latency (tens of ms) behind the models.
CONCURRENCY = 16

#: 409 ConditionalRequestConflict: another writer of the same key is at work; AWS says to try again.
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
CONFLICT_TRIES = 6


class Bucket:
    """The data bucket, by object name. Raises TransientError and AccessRefused; KeyError for what is not there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._s3 = client("s3")

    def get(self, name: str, *, start: int | None = None, end: int | None = None) -> bytes:
        """Return an object's bytes, or bytes [start, end) of it."""
        extra = {} if start is None or end is None else {"Range": f"bytes={start}-{end - 1}"}
        with translating(f"GET {name}"):
            try:
                return bytes(self._s3.get_object(Bucket=self.name, Key=name, **extra)["Body"].read())
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "404"):
                    raise KeyError(name) from error
                raise

    def put(self, name: str, data: bytes) -> None:
        """Write an object, over what is there."""
        with translating(f"PUT {name}"):
            self._s3.put_object(Bucket=self.name, Key=name, Body=data)

    def put_new(self, name: str, data: bytes) -> bool:
        """Write an object unless it is there; tell whether it was written."""
        with translating(f"PUT {name}"):
            for attempt in range(CONFLICT_TRIES):
                try:
                    self._s3.put_object(Bucket=self.name, Key=name, Body=data, IfNoneMatch="*")
                except ClientError as error:
                    if code_of(error) in ("PreconditionFailed", "412"):
                        return False
                    if code_of(error) not in ("ConditionalRequestConflict", "409"):
                        raise
                    time.sleep(0.05 * 2**attempt)
                else:
                    return True
        raise TransientError(f"PUT {name}: still in conflict with another writer after {CONFLICT_TRIES} tries")

    def written(self, name: str) -> float | None:
        """Return when an object was written (Unix seconds, S3's clock), or None if it is not there."""
        with translating(f"HEAD {name}"):
            try:
                answer = self._s3.head_object(Bucket=self.name, Key=name)
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "404", "NotFound"):
                    return None
                raise
        return float(answer["LastModified"].timestamp())

    def age(self, name: str) -> float | None:
        """Return the seconds since an object was written, or None if it is not there."""
        written = self.written(name)
        return None if written is None else time.time() - written

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below a prefix, in order."""
        with translating(f"LIST {prefix}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for entry in page.get("Contents", []):
                    yield entry["Key"]

    def outputs(self, partition: int) -> dict[bytes, float]:
        """Return the keys of a partition's outputs and when each was written: one request for a thousand of them."""
        prefix = partition_prefix(partition)
        with translating(f"LIST {prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            written = {
                ref_of(entry["Key"]): entry["LastModified"] for page in pages for entry in page.get("Contents", [])
            }
        return {bytes.fromhex(ref[2:]): at.timestamp() for ref, at in written.items() if ref is not None}

    def get_json(self, name: str) -> Any:
        """Return a JSON object."""
        return json.loads(self.get(name))

    def put_json(self, name: str, value: Any) -> None:
        """Write a JSON object."""
        self.put(name, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())

    def get_many(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield many objects in the order asked for, fetched side by side."""
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            yield from pool.map(self.get, names)

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        """Write many objects side by side."""
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(self.put, objects, objects.values()))

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return those of these objects that are not there: one HEAD each, side by side."""
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            ages = pool.map(self.age, names)
            return [name for name, age in zip(names, ages, strict=True) if age is None]


class Outputs:
    """Inputs and outputs by reference, with the last ones used held in memory. One instance lives as long as a worker.

    `requeue` is called with outputs that were there already (name -> when written): no event will index them again.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        memory_bytes: int,
        retention_seconds: float,
        requeue: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._bucket = bucket
        self._memory_bytes = memory_bytes
        self._retention_seconds = retention_seconds
        self._requeue = requeue
        self._held: OrderedDict[str, Arrays] = OrderedDict()
        self._held_bytes = 0
        self._expected: deque[str] = deque()
        self._later: deque[str] = deque()
        self._fetching: dict[str, Future[Arrays]] = {}
        #: a batch reads in one thread while another begins to fetch for the next batch
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="s3")
        self._writing = threading.Semaphore(2 * CONCURRENCY)

    def expect(self, refs: Sequence[str]) -> None:
        """Begin to fetch these objects in order; only a few are fetched ahead of the reader."""
        wanted = set(refs)
        with self._lock:
            # what was fetched early is kept, unless that failed: it may be there by now
            self._fetching = {
                ref: future
                for ref, future in self._fetching.items()
                if ref in wanted and ref not in self._held and not (future.done() and future.exception())
            }
            self._expected = deque(ref for ref in refs if ref not in self._fetching)
            self._later.clear()
            self._fetch_ahead()

    def expect_later(self, refs: Sequence[str]) -> None:
        """Begin to fetch what the next batch reads first, after all that the current one expects."""
        with self._lock:
            self._later = deque(refs)
            self._fetch_ahead()

    def read(self, ref: str) -> Arrays:
        """Return an object, from memory if it is there. Raises MissingInput."""
        with self._lock:
            held = self._held.get(ref)
            if held is not None:
                self._held.move_to_end(ref)
                return held
            future = self._fetching.pop(ref, None)
        arrays = future.result() if future else self._fetch(ref)
        with self._lock:
            self._fetch_ahead()
        self.keep(ref, arrays)
        return arrays

    def keep(self, ref: str, arrays: Arrays) -> None:
        """Hold an object in memory, and let the longest unused ones go."""
        with self._lock:
            if ref not in self._held:
                self._held_bytes += arrays.nbytes
            self._held[ref] = arrays
            while self._held_bytes > self._memory_bytes and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._held_bytes -= dropped.nbytes

    def write(self, ref: str, data: bytes) -> Future[bool]:
        """Write an output once, in the background; the future tells whether it was new."""
        self._writing.acquire()  # bounds the bytes that wait to be written
        future = self._pool.submit(self._write, object_name(ref), data)
        future.add_done_callback(lambda _: self._writing.release())
        return future

    def exists(self, ref: str) -> bool:
        """Tell whether an output is there to be used; then it is indexed again, since no event will do it."""
        return self._reuse(object_name(ref))

    def _fetch(self, ref: str) -> Arrays:
        try:
            return decode(self._bucket.get(object_name(ref)))
        except KeyError as error:
            raise MissingInput(ref) from error

    def _fetch_ahead(self) -> None:
        """Fetch the next ones; the lock is held."""
        while (self._expected or self._later) and len(self._fetching) < CONCURRENCY:
            ref = (self._expected or self._later).popleft()
            if ref not in self._held and ref not in self._fetching:
                self._fetching[ref] = self._pool.submit(self._fetch, ref)

    def _write(self, name: str, data: bytes) -> bool:
        if self._bucket.put_new(name, data):
            return True
        if self._reuse(name):
            return False
        self._bucket.put(name, data)
        return True

    def _reuse(self, name: str) -> bool:
        """Tell whether an object is there and will be for a run's time; a worn one is written anew instead."""
        written = self._bucket.written(name)
        if written is None or is_worn(time.time() - written, self._retention_seconds):
            return False
        self._requeue({name: written})
        return True
