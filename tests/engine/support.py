"""What the tests of the engine share: names for segments that no other run uses."""

import os
import uuid


def instance_name() -> str:
    """Return an instance name that no other test and no other run uses."""
    return f"t{os.getpid() % 10**7}_{uuid.uuid4().hex[:10]}"
