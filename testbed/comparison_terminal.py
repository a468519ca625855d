"""A comparison of policies in the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.comparison import Comparison

# In a file or a pipe there is no width to keep to.
WIDE = 250


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Quantities as rows, policies as columns; changes for the better green, for the worse red."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in comparison.policies:
        table.add_column(Text(name), justify="right")
    for row in comparison.rows:
        cells = []
        for cell in row.cells:
            text = Text(cell.text)
            if cell.change:
                interval = f" [{cell.interval}]" if cell.interval else ""
                text.append(f" {cell.change}{interval}", style={True: "green", False: "red", None: "dim"}[cell.better])
            cells.append(text)
        table.add_row(Text(row.label), *cells)
    (console if console.is_terminal else Console(width=WIDE, file=console.file)).print(table)
