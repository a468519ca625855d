"""How every page is made from its template."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Whatever a file says, perhaps someone else's, is text to the page: names and reasons are escaped."""
    return Environment(
        loader=PackageLoader("results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
