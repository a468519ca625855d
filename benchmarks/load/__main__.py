"""How good is the load generator? A ladder of rates against a server whose every token time is known.

    python -m benchmarks.load [--quick] [--rates 50,400] [--processes N]

The client has one core, the server another; with --processes each client has a core and a server of its own, as far as
the cores reach. One line per rate: how late requests were sent, how far the client's TTFT and ITL are from what the
server wrote, what 10,000 requests cost. The server's own unevenness ("server") and the CPU's stalls that others cause
are in the figures: on a shared machine look at the median of several runs, and at CPU-seconds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil

RATES = (50, 100, 200, 400, 600, 900, 1200, 1500)
QUICK_RATES = (50, 400, 900)
OUTPUT_TOKENS = 32
TTFT_S, ITL_S = 0.05, 0.01
COLUMNS = (
    "req/s", "n", "failed", "sent late ms p50 / p99 / max", "TTFT error ms p50 / p99", "ITL error ms p50 / p99",
    "server ITL ms p99", "core %", "CPU-s/10k", "MB/10k", "server CPU-s/10k", "",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rates, 4 s each")
    parser.add_argument("--rates", help="requests/s, comma-separated")
    parser.add_argument("--seconds", type=float, help="per rate; default 15, quick 4")
    parser.add_argument("--prompt", type=int, default=128, help="prompt tokens")
    parser.add_argument("--processes", type=int, default=1, help="client processes that share a rate")
    given = parser.parse_args()
    rates = [float(rate) for rate in given.rates.split(",")] if given.rates else QUICK_RATES if given.quick else RATES
    seconds = given.seconds or (4.0 if given.quick else 15.0)
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"{OUTPUT_TOKENS} tokens at {ITL_S * 1e3:g} ms after a TTFT of {TTFT_S * 1e3:g} ms, prompts of {given.prompt}; "
        f"{given.processes} client process(es), {len(cores)} cores, load average {os.getloadavg()[0]:.2f}"
    )
    print(" | ".join(COLUMNS))
    for rate in rates:
        print(" | ".join(rung(rate, seconds, given.prompt, given.processes, cores)), flush=True)


def rung(rate: float, seconds: float, prompt: int, processes: int, cores: list[int]) -> tuple[str, ...]:
    """One line of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers, clients = [], []
        server_cpu_s = 0.0
        for index in range(processes):
            client_core, server_core = cores[2 * index % len(cores)], cores[(2 * index + 1) % len(cores)]
            server, url = stack.enter_context(mock_server(server_core))
            servers.append(server)
            server_cpu_s -= _cpu_s(server)  # of its start
            options = {
                "url": url, "rate": rate / processes, "seconds": seconds, "prompt": prompt, "output": OUTPUT_TOKENS,
                "seed": index, "core": client_core, "out": folder / f"{index}.npz",
            }  # fmt: skip
            arguments = [f"--{name}={value}" for name, value in options.items()]
            clients.append(subprocess.Popen([sys.executable, "-m", "benchmarks.load.rung", *arguments]))
        for client in clients:
            if client.wait() != 0:
                sys.exit(f"a client at {rate:g} req/s failed; its own message is above")
        server_cpu_s += sum(_cpu_s(server) for server in servers)
        return _line(rate, [dict(np.load(folder / f"{index}.npz")) for index in range(processes)], server_cpu_s)


@contextmanager
def mock_server(core: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    options = (f"--ttft={TTFT_S}", f"--itl={ITL_S}", f"--core={core}")
    command = [sys.executable, "-m", "benchmarks.load.mock_server", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().strip()
        finally:
            server.terminate()


def _cpu_s(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _line(rate: float, found: list[dict[str, np.ndarray]], server_cpu_s: float) -> tuple[str, ...]:
    def pooled(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in found])

    def total(name: str) -> float:
        return float(sum(part[name] for part in found))

    def milliseconds(name: str, *quantiles: float) -> str:
        return " / ".join(f"{value * 1e3:.2f}" for value in np.quantile(pooled(name), quantiles))

    n = len(pooled("late"))
    tens_of_thousands = n / 1e4
    return (
        f"{rate:g}", f"{n}", f"{total('failed'):g}", milliseconds("late", 0.5, 0.99, 1.0),
        milliseconds("ttft", 0.5, 0.99), milliseconds("itl", 0.5, 0.99), milliseconds("server", 0.99),
        f"{total('cpu_s') / total('elapsed_s'):.0%}", f"{total('cpu_s') / tens_of_thousands:.1f}",
        f"{total('rss_bytes') / 1e6 / tens_of_thousands:.0f}", f"{server_cpu_s / tens_of_thousands:.1f}",
        "; ".join({str(part["bottleneck"]) for part in found if str(part["bottleneck"])}),
    )  # fmt: skip


if __name__ == "__main__":
    main()
