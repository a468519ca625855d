"""A table as text: one content for the terminal and for a page."""

from dataclasses import dataclass

NOT_MEASURED = "not measured"
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Cells are for people: quantities with their units. `columns` "" throughout: a list of names and values.

    `lead` stands above the rows and `notes` below, a sentence each. `prose`: cells are words, which may wrap.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    lead: str = ""
    notes: tuple[str, ...] = ()
    prose: bool = False

    def __post_init__(self) -> None:
        ragged = [row for row in self.rows if len(row) != len(self.columns)]
        if ragged:
            raise ValueError(f"table {self.title!r}: {len(self.columns)} columns, a row of {len(ragged[0])}")

    @property
    def has_header(self) -> bool:
        return any(self.columns)
