// Keeps what the testbed sends and draws it. All that comes is text to the page: nothing is ever read as HTML.
"use strict";

const STATES = ["STARTING", "READY", "SLEEPING", "DRAINING", "STOPPING", "FAILED", "STOPPED"];
// A READY server shows how full its KV cache is once it has told.
const TILE_TEXTS = { STARTING: "start", READY: "ready", SLEEPING: "sleep", DRAINING: "drain", STOPPING: "stop", FAILED: "failed", STOPPED: "gone" };
const TIER_COLOURS = { "IW-F": "--demand", "IW-N": "--draining", NIW: "--niw" };
const PALETTE = ["--demand", "--draining", "--ready", "--forecast", "--stopping", "--sleeping", "--starting", "--niw"];

const series = new Map(); // JSON of the name -> values per bin
let decisions = [];
let charts = new Map();
let latest = null;
let drawing = false;

const $ = (id) => document.getElementById(id);
const valuesOf = (...name) => series.get(JSON.stringify(name)) ?? [];
const named = (kind) => [...series.keys()].map((key) => JSON.parse(key)).filter((name) => name[0] === kind);

function element(kind, text = "", className = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const percent = (part, whole) => (whole ? `${(Math.floor((1000 * part) / whole) / 10).toFixed(1)} %` : "–");
const whole = (number) => Math.round(number).toLocaleString("en");

function take(message) {
  if (message.whole) {
    series.clear();
    decisions = [];
  }
  for (const [name, begin, values] of message.series) {
    const key = JSON.stringify(name);
    const kept = (series.get(key) ?? []).slice(0, begin);
    while (kept.length < begin) kept.push(null);
    series.set(key, kept.concat(values));
  }
  decisions = [...decisions, ...message.decisions].slice(-message.decisions_kept);
  if (latest === null || runOf(latest) !== runOf(message)) forgetCharts();
  latest = message;
}

function runOf({ facts, policy }) {
  return JSON.stringify([facts.scenario, facts.seed, policy]);
}

function forgetCharts() {
  for (const chart of charts.values()) chart.remove();
  charts = new Map();
}

function draw() {
  if (latest === null) return;
  drawHead();
  drawCards();
  drawServers();
  drawCharts();
  drawGpus();
  drawDecisions();
}

function drawHead() {
  const { facts, policy, stage, now_s, lost } = latest;
  document.title = `${facts.scenario} · ${policy}`;
  $("scenario").textContent = facts.scenario;
  const others = facts.policies.map((name) => (name === policy ? `[${name}]` : name)).join(" ");
  $("what").textContent = `${facts.mode} · seed ${facts.seed} · policies ${others} · ${timeText(now_s)} of ${timeText(facts.horizon_s)}`;
  $("progress").value = stage === "starting" ? 0 : Math.min(1, now_s / facts.horizon_s);
  const notices = { starting: "the initial servers are starting", stopping: "all is served; the servers stop", ended: `${policy} has ended` };
  $("notice").textContent = [notices[stage], lost ? `this view lost ${whole(lost)} events: its numbers are too low` : ""].filter(Boolean).join("; ");
}

function drawCards() {
  const cards = [];
  const tiers = Object.entries(latest.requests);
  const ended = tiers.reduce((sum, [, counts]) => sum + counts.ended, 0);
  const bad = tiers.reduce((sum, [, counts]) => sum + (counts.rejected ?? 0) + (counts.failed ?? 0), 0);
  cards.push([whole(ended), `of ${whole(latest.offered)} requests ended`, ""]);
  cards.push([whole(latest.arrived - ended), `under way, ${whole(latest.niw_queued)} in the NIW queue`, ""]);
  cards.push([whole(bad), "rejected or failed", bad ? "bad" : ""]);
  for (const [tier, counts] of tiers) if (counts.ended) cards.push([percent(counts.met, counts.ended), `SLO met, ${tier}`, ""]);
  cards.push([plain(latest.gpu_hours), "GPU-hours", ""]);
  cards.push([plain(latest.wasted_gpu_hours), "of them wasted while scaling", ""]);
  if (latest.lateness_s) cards.push([secondsText(latest.lateness_s.p99), "load generator late, p99", latest.lateness_s.p99 > 0.01 ? "bad" : ""]);
  $("cards").replaceChildren(
    ...cards.map(([value, label, className]) => {
      const card = element("div", "", "card");
      card.append(element("b", value, className), element("span", label));
      return card;
    }),
  );
}

function drawServers() {
  // Of the STOPPED ones only the last are known: their number says nothing.
  $("states").replaceChildren(
    ...STATES.filter((state) => state !== "STOPPED").map((state) => {
      const item = element("li");
      const number = latest.servers.filter((server) => server.state === state).length;
      item.append(element("i", "", `swatch ${state}`), `${state.toLowerCase()} ${number}`);
      return item;
    }),
  );
  const byRegion = new Map();
  for (const server of latest.servers) {
    if (!byRegion.has(server.region)) byRegion.set(server.region, new Map());
    const models = byRegion.get(server.region);
    models.set(server.model, [...(models.get(server.model) ?? []), server]);
  }
  $("regions").replaceChildren(...[...byRegion].sort().map(([region, models]) => regionOf(region, models)));
}

function regionOf(region, models) {
  const box = element("div", "", "region");
  box.append(element("h3", region));
  for (const [model, servers] of [...models].sort()) {
    const row = element("div", "", "model");
    const tiles = element("div", "", "tiles");
    tiles.append(...servers.map(tileOf));
    row.append(element("span", model), tiles);
    box.append(row);
  }
  return box;
}

function tileOf(server) {
  const text = server.kv_cache_usage === null ? TILE_TEXTS[server.state] : `${Math.round(100 * server.kv_cache_usage)}%`;
  const tile = element("span", text, `tile ${server.state}`);
  const gauges = server.running === null ? "" : `, ${server.running} running, ${server.waiting} waiting`;
  tile.title = `${server.id} (${server.gpu_type}, ${server.role}): ${server.state} since ${timeText(server.since_s)}${gauges}${server.reason ? `: ${server.reason}` : ""}`;
  tile.setAttribute("aria-label", tile.title);
  return tile;
}

function chart(parent, title, lines, options) {
  const key = `${parent}/${title}`;
  const shape = JSON.stringify(lines);
  const old = charts.get(key);
  if (old?.shape !== shape) {
    const made = new Chart($(parent), title, lines, options);
    made.shape = shape;
    if (old) old.replaceWith(made);
    charts.set(key, made);
  }
  return charts.get(key);
}

function drawCharts() {
  const { bin_s, bins, facts } = latest;
  const length = Math.max(bins, ...[...series.values()].map((values) => values.length));
  const times = Array.from({ length }, (_, at) => (at + 0.5) * bin_s);
  const span = [0, Math.max(facts.horizon_s, bins * bin_s)];
  const show = (parent, title, lines, values, options) => chart(parent, title, lines, options).show(times, values, span);
  const upto = (values) => values.slice(0, bins);

  for (const [, model, region] of named("interactive")) {
    show(
      "pools",
      `${model} · ${region}`,
      [
        { label: "interactive", colour: "--demand", fill: true },
        { label: "NIW", colour: "--niw" },
        { label: "forecast", colour: "--forecast", dash: [5, 3] },
        { label: "upper", colour: "--forecast", dash: [2, 3], width: 1 },
        { label: "capacity", colour: "--capacity" },
      ],
      ["interactive", "niw", "forecast", "forecast upper", "capacity"].map((kind) => valuesOf(kind, model, region)),
    );
  }
  const tiers = Object.keys(facts.slos).filter((tier) => valuesOf("e2e", tier, "p50").length);
  for (const [metric, title, limit] of [["ttft", "TTFT", "ttft_s"], ["tpot", "TPOT", "tpot_s"], ["e2e", "E2E", "deadline_s"]]) {
    const lines = [];
    const values = [];
    for (const tier of tiers) {
      const of = { colour: TIER_COLOURS[tier] ?? "--forecast", gaps: true };
      lines.push({ ...of, label: `${tier} p50`, width: 1 }, { ...of, label: `${tier} p95`, width: 2 });
      values.push(valuesOf(metric, tier, "p50"), valuesOf(metric, tier, "p95"));
      const slo = facts.slos[tier][limit];
      const highest = Math.max(...valuesOf(metric, tier, "p95").filter((value) => value !== null));
      // A limit far above all that was measured would squeeze it flat.
      if (slo !== null && slo < 30 * highest) {
        lines.push({ ...of, label: `${tier} SLO`, width: 1, dash: [3, 4] });
        values.push(times.map(() => slo));
      }
    }
    if (lines.length) show("latencies", title, lines, values, { log: true, text: secondsText });
  }
  const states = STATES.filter((state) => valuesOf("servers", state).length);
  show("fleet", "servers by state", states.map((state) => ({ label: state.toLowerCase(), colour: `--${state.toLowerCase()}` })), states.map((state) => upto(valuesOf("servers", state))), { least: 1 });
  const pools = named("utilisation");
  const several = new Set(pools.map((name) => name[3])).size > 1;
  const label = ([, model, region, gpu, role]) => [model, region, several ? gpu : "", role === "shared" ? "" : role].filter(Boolean).join(" ");
  show("fleet", "utilisation of pools", pools.map((name, at) => ({ label: label(name), colour: PALETTE[at % PALETTE.length], width: 1, gaps: true })), pools.map((name) => valuesOf(...name)), { least: 1 });
  const queues = named("NIW queue");
  show("fleet", "NIW queue, requests", queues.map((name, at) => ({ label: name[1], colour: PALETTE[at % PALETTE.length], gaps: true })), queues.map((name) => valuesOf(...name)), { least: 1 });
  if (latest.lateness_s) {
    show("fleet", "lateness of the load generator", [{ label: "p50", colour: "--demand", gaps: true }, { label: "p99", colour: "--draining", gaps: true }], [valuesOf("lateness", "p50"), valuesOf("lateness", "p99")], { text: secondsText });
  }
  $("tiers").replaceChildren(
    ...tiers.map((tier) => {
      const item = element("li");
      const swatch = element("i", "", "swatch");
      swatch.style.background = `var(${TIER_COLOURS[tier] ?? "--forecast"})`;
      item.append(swatch, tier);
      return item;
    }),
    element("li", "thin p50, thick p95, dotted the SLO, by the time at which requests ended", "muted"),
  );
}

function drawGpus() {
  $("gpu-section").hidden = latest.gpus.length === 0;
  const text = (value, form) => (value === null ? "–" : form(value));
  $("gpus").replaceChildren(
    ...latest.gpus.map((gpu) => {
      const row = element("tr");
      row.append(
        element("th", String(gpu.gpu)),
        element("td", text(gpu.utilization, (share) => `${Math.round(100 * share)} %`)),
        element("td", text(gpu.power_w, (watts) => `${Math.round(watts)} W`)),
        element("td", text(gpu.memory_used_bytes, (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`)),
        element("td", text(gpu.temperature_c, (degrees) => `${Math.round(degrees)} °C`)),
      );
      return row;
    }),
  );
}

function drawDecisions() {
  $("decided").textContent = `${whole(latest.decisions_total)} decisions so far; those that changed something or solved a program, newest first`;
  $("decisions").replaceChildren(...[...decisions].reverse().map(decisionOf));
}

function decisionOf(decision) {
  const item = element("li");
  item.append(element("time", timeText(decision.at_s)));
  if (decision.solve) {
    const { termination, gap, shortfall_tokens_per_s, solve_wall_s } = decision.solve;
    const parts = [`program: ${termination}`];
    if (gap !== null) parts.push(`gap ${plain(100 * gap)} %`);
    if (shortfall_tokens_per_s > 0) parts.push(`short of ${plain(shortfall_tokens_per_s)} tokens/s`);
    parts.push(secondsText(solve_wall_s));
    item.append(element("span", parts.join(", "), "muted"));
  }
  if (decision.steps.length) {
    const steps = element("ul");
    for (const [placement, change, reason] of decision.steps) {
      const step = element("li");
      step.append(element("span", change > 0 ? `+${change}` : String(change), "change"), ` ${placement}: ${reason}`);
      steps.append(step);
    }
    if (decision.more_steps) steps.append(element("li", `and ${decision.more_steps} more`, "muted"));
    item.append(steps);
  }
  for (const [pool, reason] of decision.fell_back) item.append(element("div", `forecast of ${pool} fell back: ${reason}`, "muted"));
  return item;
}

const stream = new EventSource("events");
stream.onmessage = (event) => {
  take(JSON.parse(event.data));
  // A tab that is not seen draws nothing: its frames would pile up.
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
};
stream.onerror = () => {
  if (stream.readyState === EventSource.CLOSED) $("notice").textContent = "the testbed refused this page; reload it later";
  else $("notice").textContent = latest?.stage === "ended" ? `${latest.policy} has ended, and so has the testbed` : "the testbed does not answer; trying again";
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  forgetCharts();
  draw();
});
