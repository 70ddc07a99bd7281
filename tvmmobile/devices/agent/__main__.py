"""`python -m tvmmobile.devices.agent` builds the agent and the plugins for QEMU ahead of their first use; set-up calls it."""

from __future__ import annotations

import sys

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.plugin.build import build_plugin


def main() -> int:
    """Build all and print where they are; 0, or the error's exit code."""
    try:
        print(build_bundle(lambda sentence: print(f"{sentence} …", file=sys.stderr, flush=True)))
        print(build_plugin())
        print(build_plugin(phases=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
