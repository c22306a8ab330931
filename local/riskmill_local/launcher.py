"""The embedded cloud's server process: `python -m riskmill_local.launcher`, started by cloud.up.

1. Apply our patches; stop with exit code 3 and one line if this MiniStack is not the one that they were written for.
2. Serve on 127.0.0.1:GATEWAY_PORT until the process is ended.
It keeps nothing on disk but extracted zips and temporary files, all of them below the cloud's state folder, so a crash
leaves nothing that the next start could trip over.
"""

import logging
import sys

from ministack import app

from riskmill_local import patches

WRONG_VERSION = 3
"""Exit code when a patch does not fit the installed MiniStack."""


def main() -> int:
    """Patch MiniStack and serve."""
    log = logging.getLogger("riskmill")
    try:
        seconds = patches.apply()
    except patches.PatchError as error:
        log.error("%s", error)
        return WRONG_VERSION
    log.warning("%d patches applied in %.0f ms", len(patches.PATCHES), seconds * 1e3)
    sys.argv = sys.argv[:1]  # MiniStack's main parses the command line
    app.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
