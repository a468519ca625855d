// A chart of some series over the time of the run, drawn by uPlot in the page's own colours.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function timeText(seconds) {
  const whole = Math.round(Math.abs(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const sign = seconds < 0 ? "-" : "";
  return sign + (h ? `${h}:${String(m).padStart(2, "0")}:${String(s).padStart(2, "0")}` : `${m}:${String(s).padStart(2, "0")}`);
}

// A mark of an axis that ends at `end` seconds: no finer than marks of such an axis are.
function markText(seconds, end) {
  return end > 3 * 3600 ? `${+(seconds / 3600).toFixed(2)} h` : timeText(seconds);
}

function plain(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(3));
}

function secondsText(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 1) return `${+(value * 1e3).toPrecision(3)} ms`;
  return value < 120 ? `${+value.toPrecision(3)} s` : `${+(value / 60).toPrecision(3)} min`;
}

// `lines`: [{label, colour (a custom property's name), width, dash, fill}]. `options`: {log, text (of a value), limits}.
class Chart {
  constructor(parent, title, lines, options = {}) {
    this.lines = lines;
    this.options = options;
    this.figure = document.createElement("figure");
    this.figure.append(document.createElement("figcaption"), document.createElement("div"));
    this.caption = this.figure.firstChild;
    this.caption.textContent = title;
    this.reading = document.createElement("span");
    this.reading.className = "muted";
    this.caption.append(" ", this.reading);
    parent.append(this.figure);
    this.data = [[], ...lines.map(() => [])];
    this.span = [0, 1];
    this.make();
    new ResizeObserver(() => this.fit()).observe(this.figure);
  }

  make() {
    this.plot?.destroy();
    const text = this.options.text ?? plain;
    const [ink, grid] = [colour("--muted"), colour("--line")];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "11px system-ui, sans-serif" };
    this.plot = new uPlot(
      {
        width: this.width(),
        height: 170,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: {
          x: { time: false, range: () => this.span },
          y: this.options.log ? { distr: 3 } : { range: (_, low, high) => [0, Math.max(high || 0, this.options.least ?? 1e-3) * 1.05] },
        },
        axes: [
          { ...axis, size: 26, values: (_, marks) => marks.map((mark) => markText(mark, this.span[1])), space: 60, incrs: [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400] },
          { ...axis, size: 60, values: (_, marks) => marks.map((mark) => (mark === null ? "" : text(mark))) },
        ],
        series: [
          {},
          ...this.lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: line.width ?? 1.5,
            dash: line.dash,
            fill: line.fill ? `${colour(line.colour)}33` : undefined,
            points: { show: false },
            spanGaps: line.gaps ?? false,
          })),
        ],
        hooks: {
          setCursor: [(plot) => this.read(plot.cursor.idx)],
        },
      },
      this.data,
      this.figure.lastChild,
    );
  }

  read(index) {
    const text = this.options.text ?? plain;
    if (index === null || index === undefined) {
      this.reading.textContent = "";
      return;
    }
    const values = this.lines
      .map((line, at) => [line.label, this.data[at + 1][index]])
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([label, value]) => `${label} ${text(value)}`);
    this.reading.textContent = [timeText(this.data[0][index]), ...values].join(" · ");
  }

  width() {
    return Math.max(160, Math.floor(this.figure.clientWidth));
  }

  fit() {
    if (this.width() !== this.plot.width) this.plot.setSize({ width: this.width(), height: 170 });
  }

  // `times`: the middles of the bins; `values`: one array per line, as long or shorter.
  show(times, values, span) {
    this.span = span;
    const length = Math.max(1, ...values.map((each) => each.length));
    this.data = [times.slice(0, length), ...values.map((each) => Array.from({ length }, (_, at) => each[at] ?? null))];
    this.plot.setData(this.data);
  }

  // Put another chart in the place of this one.
  replaceWith(other) {
    this.plot.destroy();
    this.figure.replaceWith(other.figure);
  }

  remove() {
    this.plot.destroy();
    this.figure.remove();
  }
}
