"""How every page is made from its template."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from results.quantities import count, percent, seconds


def filled(template: str, **shown: object) -> str:
    """HTML of templates/TEMPLATE. What a file says, perhaps someone else's, is text to it: names are escaped."""
    pages = Environment(
        loader=PackageLoader("results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(count=count, percent=percent, seconds=seconds, svg=Markup)
    return pages.get_template(template).render(shown)
