"""An address as it may be shown."""

import re


def shown_url(url: str) -> str:
    """`url` without the user and the password that may stand in it."""
    return re.sub(r"^(\w+://)?[^/?#]*@", r"\1", url)
