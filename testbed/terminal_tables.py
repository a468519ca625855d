"""Text tables on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.text_table import NOT_MEASURED, TextTable


def print_tables(console: Console, tables: Sequence[TextTable]) -> None:
    """Each with its title above and its notes below."""
    for table in tables:
        console.print(_printable(table.title), style="bold")
        if table.lead:
            console.print(_printable(table.lead))
        if table.rows:
            console.print(_rich(table))
        for note in table.notes:
            console.print(_printable(note), style="dim")
        console.print()


def _rich(table: TextTable) -> Table:
    shown = Table(box=None, pad_edge=False, show_header=table.has_header)
    for index, name in enumerate(table.columns):
        left = index == 0 or table.prose
        shown.add_column(_printable(name), justify="left" if left else "right", overflow="fold")
    for row in table.rows:
        cells = [_printable(cell) for cell in row]
        for cell in cells:
            if cell.plain == NOT_MEASURED:
                cell.stylize("dim")
        shown.add_row(*cells)
    return shown


def _printable(text: str) -> Text:
    # A profile or a record may be someone else's: neither markup nor control characters of it reach the terminal.
    return Text("".join(character if character.isprintable() else "�" for character in text))
