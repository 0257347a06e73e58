// Activations over the tokens of one response: a line per chosen latent or group, the restart, and a cursor.

const LINES = 4; // colours in the style sheet
const MARGIN = { left: 46, right: 10, top: 18, bottom: 22 };
const TALL = 170;

class Chart {
  /** `move` is called with a token's place when the reader points at the chart. */
  constructor(box, move) {
    this.box = box;
    box.addEventListener("pointermove", (event) => move(this.tokenAt(event)));
    box.addEventListener("pointerdown", (event) => move(this.tokenAt(event)));
    this.watch = new ResizeObserver(() => this.content && this.render());
    this.watch.observe(box);
  }

  /** `content`: lines [{name, values}], restart, spoken, kind, and attempts [{from, to, band}] in tokens. */
  show(content) {
    this.content = content;
    this.render();
  }

  /** The highest value drawn. */
  get highest() {
    return Math.max(...this.content.lines.map((one) => one.values.reduce((high, value) => Math.max(high, value), 0)));
  }

  /** Give the value axis an end of its own: charts that are compared share it. */
  scale(end) {
    this.end = end;
    this.render();
  }

  get wide() {
    return Math.max(160, this.box.clientWidth - MARGIN.left - MARGIN.right);
  }

  get count() {
    return this.content.lines[0].values.length;
  }

  x(token) {
    return MARGIN.left + (this.wide * token) / this.count;
  }

  tokenAt(event) {
    const inside = event.clientX - this.box.getBoundingClientRect().left - MARGIN.left;
    return Math.max(0, Math.min(this.count - 1, Math.floor((inside / this.wide) * this.count)));
  }

  render() {
    const { lines, restart, spoken, kind, attempts } = this.content;
    const bottom = TALL - MARGIN.bottom;
    const top = Math.max(this.highest, this.end || 0);
    const y = (value) => bottom - (top > 0 ? value / top : 0) * (bottom - MARGIN.top);
    const all = MARGIN.left + this.wide;
    const svg = draw("svg", { width: all + MARGIN.right, height: TALL, "aria-hidden": "true", focusable: "false" });
    for (const { from, to, band } of attempts) {
      svg.append(draw("rect", { class: "v-strip v-fill-" + band, x: this.x(from), y: bottom + 1, width: Math.max(1, this.x(to) - this.x(from) - 1), height: 4 }));
    }
    for (const value of top > 0 ? [0, top / 2, top] : [0]) {
      svg.append(draw("line", { class: "v-grid", x1: MARGIN.left, x2: all, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { class: "v-tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
    }
    svg.append(draw("text", { class: "v-tick", x: MARGIN.left, y: TALL - 3 }, "token 1"));
    svg.append(draw("text", { class: "v-tick", x: all, y: TALL - 3, "text-anchor": "end" }, String(this.count)));
    if (spoken > restart) {
      svg.append(draw("rect", { class: "v-spoken", x: this.x(restart), y: MARGIN.top, width: this.x(spoken) - this.x(restart), height: bottom - MARGIN.top }));
    }
    if (restart < this.count) {
      const words = kind === "episode" ? "restart" : "restart of its episode";
      const right = this.x(restart) > MARGIN.left + this.wide * 0.6;
      svg.append(draw("line", { class: "v-restart", x1: this.x(restart), x2: this.x(restart), y1: MARGIN.top - 4, y2: bottom }));
      svg.append(draw("text", { class: "v-restart-name", x: this.x(restart) + (right ? -5 : 5), y: 11, "text-anchor": right ? "end" : "start" }, words));
    }
    lines.forEach((one, i) => {
      const points = Array.from(one.values, (value, token) => this.x(token + 0.5).toFixed(1) + "," + y(value).toFixed(1));
      svg.append(draw("polyline", { class: "v-line v-line-" + (i % LINES), points: points.join(" ") }));
    });
    this.cursor = draw("line", { class: "v-cursor", y1: MARGIN.top - 4, y2: bottom + 5 });
    this.dots = lines.map((_, i) => draw("circle", { class: "v-dot v-line-" + (i % LINES), r: 3.5 }));
    svg.append(this.cursor, ...this.dots);
    this.y = y;
    this.box.replaceChildren(svg);
    this.point(this.token);
  }

  /** Put the cursor on a token; undefined takes it away. */
  point(token) {
    this.token = token;
    const shown = token !== undefined && token < this.count;
    for (const node of [this.cursor, ...this.dots]) node.classList.toggle("v-hidden", !shown);
    if (!shown) return;
    const x = this.x(token + 0.5).toFixed(1);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.dots.forEach((dot, i) => {
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", this.y(this.content.lines[i].values[token]).toFixed(1));
    });
  }
}
