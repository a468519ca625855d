"""Each server of a recorded run alone: what it was sent, when it was sent it, on an emulated server in virtual time.

No router, no policy, no fleet: what differs from the record is the model of a server, and nothing else.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from controller.rules.ordering import request_ranking
from controller.types import Placement
from profiler.profile import ServerProfile
from results.recorder import completion_row
from results.schema import COMPLETIONS
from testbed.capacities import served_profile
from testbed.emulated_server import EmulatedServer
from testbed.scenario import Scenario
from testbed.server_sources import server_spec
from testbed.virtual_time import VirtualTimeLoop
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.replay import Replay
from workloads.request import Request, Tier
from workloads.trace import Trace

Profiles = Mapping[tuple[str, str], ServerProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """A request as a real server got it; `half_rtt_s` lies between the server and its client either way."""

    request: Request
    sent_s: float
    half_rtt_s: float

    @property
    def at_server_s(self) -> float:
        return self.sent_s + self.half_rtt_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedServer:
    """A server of a recorded run and what it was sent, in order."""

    server_id: str
    placement: Placement
    sent: tuple[SentRequest, ...]


def recorded_servers(
    scenario: Scenario, trace: Trace, completions: pd.DataFrame, servers: pd.DataFrame
) -> list[RecordedServer]:
    """Every server that was sent a request; one that was rejected reached none. Trace and tables are of a run folder:
    the trace alone knows which prompts begin alike."""
    prefixes = {request.request_id: request for request in trace.requests() if request.prefix_hashes}
    round_trips = scenario.round_trips()
    gpu_types = servers.drop_duplicates("server_id").set_index("server_id")["gpu_type"].to_dict()
    reached = completions[(completions["server_id"] != "") & (completions["outcome"] != Outcome.REJECTED.value)]
    found = []
    for server_id, rows in reached.sort_values(["sent_s", "request_id"]).groupby("server_id", observed=True):
        first = rows.iloc[0]
        placement = Placement(str(first["model"]), str(first["served_region"]), str(gpu_types[server_id]))
        sent = [
            SentRequest(
                request=request,
                sent_s=sent_s,
                half_rtt_s=0.5 * round_trips.get((request.region, placement.region), 0.0),
            )
            for request, sent_s in _requests(rows, prefixes)
        ]
        in_order = tuple(sorted(sent, key=lambda one: one.at_server_s))
        found.append(RecordedServer(server_id=str(server_id), placement=placement, sent=in_order))
    return found


def _requests(rows: pd.DataFrame, prefixes: Mapping[int, Request]) -> Iterator[tuple[Request, float]]:
    columns = (
        "request_id", "arrival_s", "model", "region", "tier", "prompt_tokens", "output_tokens_asked", "deadline_s",
        "sent_s",
    )  # fmt: skip
    for number, arrival_s, model, region, tier, prompt, output, deadline_s, sent_s in zip(
        *(rows[name].tolist() for name in columns), strict=True
    ):
        request = Request(
            request_id=number,
            arrival_s=arrival_s,
            model=model,
            region=region,
            tier=Tier(tier),
            prompt_tokens=prompt,
            output_tokens=output,
            deadline_s=None if pd.isna(deadline_s) else deadline_s,
            prefix_hashes=prefixes[number].prefix_hashes if number in prefixes else (),
            prefix_block_tokens=prefixes[number].prefix_block_tokens if number in prefixes else 0,
        )
        yield request, sent_s


def replay_alone(scenario: Scenario, profiles: Profiles, recorded: list[RecordedServer]) -> pd.DataFrame:
    """What emulated servers with these profiles (by model and GPU type) make of the same: columns of `completions`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        ended = [runner.run(_replay(scenario, profiles, server)) for server in recorded]
    rows = [completion_row(completion) for completions in ended for completion in completions]
    frame = pd.DataFrame(rows, columns=list(COMPLETIONS.columns))
    return frame.astype({"first_token_s": float, "tier": str, "outcome": str})


async def _replay(scenario: Scenario, profiles: Profiles, recorded: RecordedServer) -> list[Completion]:
    """The completions as the clients see them, in the order in which they ended."""
    placement = recorded.placement
    clock = RunClock()
    server = EmulatedServer(
        server_spec(scenario, placement),
        recorded.server_id,
        profile=served_profile(profiles[placement.model, placement.gpu_type], scenario.models[placement.model]),
        clock=clock,
        on_change=lambda *_: None,
        start_s=0.0,
        stop_s=0.0,
    )
    await server.start()
    clock.start()
    ranking = request_ranking(scenario.router.order, scenario.slos())
    by_id = {sent.request.request_id: sent for sent in recorded.sent}
    ended: list[Completion] = []
    all_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(at_server: Request) -> None:
        sent = by_id[at_server.request_id]
        priority = None if ranking is None else ranking(sent.request, sent.at_server_s, False)
        server.begin(sent.request, lambda completion: note(sent, completion), priority)

    def note(sent: SentRequest, completion: Completion) -> None:
        ended.append(_at_client(completion, sent))
        if len(ended) == len(recorded.sent):
            all_ended.set_result(None)

    handed_over = (replace(sent.request, arrival_s=sent.at_server_s, deadline_s=None) for sent in recorded.sent)
    await Replay(handed_over, begin, clock).run()
    await all_ended
    return ended


def _at_client(completion: Completion, sent: SentRequest) -> Completion:
    half_rtt_s, first_s = sent.half_rtt_s, completion.first_token_s
    return replace(
        completion,
        sent_s=sent.sent_s,
        first_token_s=None if first_s is None else first_s + half_rtt_s,
        last_token_s=completion.last_token_s + half_rtt_s,
    )
