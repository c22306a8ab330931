"""Returns what it was asked and where its code comes from."""

import os
import sys
from typing import Any

import greeting


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {
        "said": greeting.say(os.environ["GREETING"], event.get("name", "nobody")),
        "module": greeting.__file__,
        "environment": dict(os.environ),
        "path": sys.path,
        "seconds_left": context.get_remaining_time_in_millis() / 1000,
    }
