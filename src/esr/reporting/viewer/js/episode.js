// One trial: its facts, its response cut into attempts, and what was read on its tokens.

const AT_ONCE = 20000; // characters of a stretch shown before a button offers the rest

class Episode {
  constructor(data, box, side) {
    this.data = data;
    this.box = box;
    this.side = side;
    this.turn = 0;
  }

  clear() {
    this.turn++;
    this.trial = -1;
    this.read = null;
    this.box.replaceChildren();
  }

  /** Show a trial; resolves to whether it is still the one wanted when its response was there. */
  async show(trial, view) {
    const turn = ++this.turn;
    this.trial = trial;
    this.read = null;
    this.token = undefined;
    const body = make("div", { class: "v-body" }, make("p", { class: "v-muted" }, "Reading …"));
    this.box.replaceChildren(this.head(trial), body);
    let response, read;
    try {
      [response, read] = await Promise.all([this.data.response(trial), this.data.reading(trial)]);
    } catch (error) {
      if (turn === this.turn) body.replaceChildren(make("p", { role: "alert" }, "This response cannot be read: " + line(error.message)));
      return false;
    }
    if (turn !== this.turn) return false;
    this.response = response;
    this.read = read;
    this.body = body;
    this.render(view);
    return true;
  }

  head(trial) {
    const { data } = this;
    const { columns } = data;
    const { id, label, threshold } = data.direction(trial);
    const { number, text } = data.prompt(trial);
    const outcome = data.outcome(trial);
    const badges = [make("span", { class: "v-badge v-" + outcome.replace(" ", "-") }, outcome === "single" ? "no restart" : outcome)];
    if (data.flag(trial, "degraded")) badges.push(make("span", { class: "v-badge v-flag" }, "degraded"));
    if (data.flag(trial, "promoted")) badges.push(make("span", { class: "v-badge v-flag" }, "direction promotes restarts"));
    if (data.flag(trial, "screened") !== data.flag(trial, "multi_attempt") && outcome !== "unscored") {
      badges.push(make("span", { class: "v-badge v-flag" }, data.flag(trial, "screened") ? "phrase screen sees a restart" : "phrase screen sees no restart"));
    }
    const boost = columns.boost[trial];
    const steered = boost ? "boost " + short(boost) + (threshold ? " (threshold " + short(threshold) + ")" : "") : "not steered";
    const facts = [steered, plural(columns.tokens[trial], "token") + (data.finishes[columns.finish[trial]] === "length" ? ", cut at the limit" : "")];
    if (outcome === "unscored") facts.push("unscored: " + line(data.reason(trial), 300));
    if (columns.change[trial] !== null) facts.push("score change " + signed(columns.change[trial]));
    if (columns.weight[trial] !== null && columns.weight[trial] !== 1) facts.push("stands for " + short(columns.weight[trial]) + " responses");
    const key = columns.key[trial];
    const name = line(label || "no label", 160);
    return make(
      "header",
      { class: "v-head" },
      make("p", { class: "v-kicker" }, make("bdi", {}, line(data.condition(trial), 120))),
      make("h3", { class: "v-title" }, make("bdi", {}, name)),
      make("p", { class: "v-prompt" }, make("span", { class: "v-aside" }, "Prompt: "), make("bdi", {}, ...seen(text.slice(0, 2000))), text.length > 2000 ? "… [+" + (text.length - 2000).toLocaleString("en") + " characters]" : ""),
      make("p", { class: "v-badges" }, badges),
      make("p", { class: "v-facts" }, ...facts.map((fact) => make("span", {}, make("bdi", {}, fact)))),
      make(
        "p",
        { class: "v-facts" },
        make("span", {}, make("bdi", {}, line(id, 80))),
        make("span", {}, "prompt " + number),
        make("span", {}, "seed " + columns.seed[trial]),
        make("a", { class: "v-permalink", href: "#" + new URLSearchParams({ trial: key }), title: line(key, 120) }, "link to this trial"),
      ),
    );
  }

  /** The text, and where tokens were read their shading and chart. `view`: units chosen, and what to do at a cursor. */
  render(view) {
    this.view = view;
    const { text, given, judgedFrom, source, thirds, attempts } = this.response;
    this.spans = this.read ? this.read.ends.map(() => []) : [];
    const parts = [];
    if (given) {
      const from = source ? make("a", { href: "#" + new URLSearchParams({ trial: source }) }, "another trial") : "";
      const note = make("p", { class: "v-note" }, "Dotted: ", plural(given, "character"), " given to the model to continue", source ? ", from " : "", from, judgedFrom ? "; the judge did not see them" : "", ".");
      parts.push(note);
    }
    if (thirds.length) parts.push(make("p", { class: "v-note" }, "Scores of the thirds: " + thirds.map((score) => short(score)).join(", ") + "."));
    if (attempts.length) parts.push(this.overview());
    parts.push(this.stretch(0, judgedFrom, null, 0));
    let position = judgedFrom;
    attempts.forEach((attempt, i) => {
      parts.push(this.stretch(position, attempt.start, null, 0), this.stretch(attempt.start, attempt.end, attempt, i + 1));
      position = attempt.end;
    });
    parts.push(this.stretch(position, text.length, null, 0));
    if (!text) parts.push(make("p", { class: "v-muted" }, "The response is empty."));
    const words = make("div", { class: "v-text" + (this.read ? " v-shaded" : "") }, parts);
    this.body.replaceChildren(words);
    if (!this.read) return;
    words.addEventListener("pointerover", (event) => this.pointed(event));
    words.addEventListener("click", (event) => this.pointed(event));
    this.body.append(this.panel());
    this.shade(view.units);
    this.point(this.read.kind === "episode" ? Math.min(this.read.restart, this.read.ends.length - 1) : 0, true);
  }

  /** The attempts as blocks as long as their text. */
  overview() {
    const bar = make("div", { class: "v-bar", "aria-hidden": "true" });
    const { text, attempts } = this.response;
    let position = 0;
    const add = (from, to, attempt) => {
      if (!attempt && !text.slice(from, to).trim()) return;
      const part = make("span", { class: attempt ? "v-fill v-" + band(attempt.score) : "v-fill" }, attempt ? short(attempt.score) : "");
      part.style.flexGrow = String((to - from) / text.length);
      bar.append(part);
    };
    for (const attempt of attempts) {
      add(position, attempt.start, null);
      add(attempt.start, attempt.end, attempt);
      position = attempt.end;
    }
    add(position, text.length, null);
    return bar;
  }

  stretch(start, end, attempt, number) {
    const { text, given, judgedFrom } = this.response;
    if (!attempt && !text.slice(start, end).trim()) return null;
    const quoted = attempt && typeof attempt.quote === "number" ? start + attempt.quote : start;
    const words = make("p", { class: "v-words", dir: "auto" });
    const shown = Math.min(end, start + AT_ONCE);
    words.append(...this.pieces(start, shown, start, quoted, given));
    const node = make("section", { class: "v-stretch v-" + (attempt ? band(attempt.score) : "none") });
    if (attempt) {
      const head = make("p", { class: "v-stretch-head" }, make("b", {}, "Attempt " + number), make("span", { class: "v-score" }, "score " + short(attempt.score)));
      if (attempt.kind) head.append(make("span", {}, "began anew: " + line(attempt.kind, 60)));
      const quote = typeof attempt.quote === "number" ? text.slice(start, quoted).trim() : attempt.quote;
      if (quote && (attempt.kind || typeof attempt.quote !== "number")) {
        head.append(make("span", { class: "v-quote" }, "judge’s quote: ", make("q", {}, make("bdi", {}, line(quote, 160)))));
      }
      node.append(head);
      node.setAttribute("aria-label", "Attempt " + number + ", score " + short(attempt.score));
    } else {
      const aside = start < judgedFrom ? "given, not judged" : end <= given ? "given" : "outside of the attempts";
      node.append(make("p", { class: "v-stretch-head" }, make("span", {}, aside)));
      node.setAttribute("aria-label", aside);
    }
    node.append(words);
    if (shown < end) {
      const more = make("button", { type: "button", class: "v-button", click: () => {
        more.remove();
        words.append(...this.pieces(shown, end, start, quoted, given));
        if (this.read) this.shade(this.view.units);
      } }, "Show the other " + plural(end - shown, "character"));
      node.append(more);
    }
    return node;
  }

  /** Text from `start` to `end`, cut where a token, the quote or the given text ends. */
  pieces(start, end, quoteStart, quoteEnd, given) {
    const { text } = this.response;
    const ends = this.read ? this.read.ends : [];
    let token = firstAfter(ends, start);
    const nodes = [];
    for (let from = start; from < end; ) {
      while (token < ends.length && ends[token] <= from) token++;
      let to = end;
      for (const cut of [ends[token], quoteEnd, given]) if (cut > from && cut < to) to = cut;
      const marks = [];
      if (token < ends.length) marks.push("v-token");
      if (from < given) marks.push("v-given");
      const quoted = from >= quoteStart && to <= quoteEnd && quoteEnd > quoteStart;
      const inside = seen(text.slice(from, to));
      if (marks.length || quoted) {
        const node = make(quoted ? "mark" : "span", { class: marks.join(" ") || null }, inside);
        if (token < ends.length) {
          node.dataset.token = token;
          this.spans[token].push(node);
        }
        nodes.push(node);
      } else nodes.push(...inside);
      from = to;
    }
    return nodes;
  }

  /** Chart, legend and the token under the cursor. */
  panel() {
    const { ends, kind } = this.read;
    const said = make("p", { class: "v-said", id: "v-said-" + this.side });
    const plot = make("div", { class: "v-plot" });
    this.slider = make("div", { class: "v-slider", role: "slider", tabindex: "0", "aria-label": "Token of the response", "aria-valuemin": 1, "aria-valuemax": ends.length, "aria-valuenow": 1, "aria-orientation": "horizontal" }, plot);
    this.legend = make("ul", { class: "v-legend" });
    this.said = said;
    this.chart = new Chart(plot, (token) => this.point(token));
    const what = { episode: "Read on this response under its own steering.", "no-recovery": "A control: steered, never restarts.", unsteered: "A control: the same prompt, not steered." };
    this.what = what[kind];
    this.note = make("p", { class: "v-note" });
    const panel = make("section", { class: "v-panel", "aria-label": "Activations on the tokens" }, said, this.slider, this.legend, this.note);
    return panel;
  }

  /** Colour the tokens by the first unit (by the root of its share of the highest value of all readings, so that small
   *  values show) and draw a line for each; `units`: places among `data.units()`. */
  shade(units) {
    const every = this.data.units();
    const { values, restart, spoken, kind } = this.read;
    const first = values[units[0]];
    const top = every[units[0]].top || 1;
    this.spans.forEach((some, token) => {
      for (const span of some) span.style.setProperty("--v-share", (80 * Math.sqrt(Math.min(1, first[token] / top))).toFixed(1) + "%");
    });
    this.units = units;
    this.chart.show({ lines: units.map((unit) => ({ values: values[unit] })), restart, spoken, kind, attempts: this.tokensOfAttempts() });
    this.legend.replaceChildren(
      ...units.map((unit, i) =>
        make("li", {}, make("span", { class: "v-swatch v-line-" + (i % LINES), "aria-hidden": "true" }), make("bdi", {}, line(every[unit].name, 60)), " ", make("b", { class: "v-value" }), this.view.remove && i > 0 ? make("button", { type: "button", class: "v-drop", "aria-label": "Remove the line of " + line(every[unit].name, 60), click: () => this.view.remove(unit) }, "×") : ""),
      ),
    );
    this.note.textContent = this.what + " Shaded: " + line(every[units[0]].name, 60) + "; darkest at " + short(top) + ", the highest value read.";
    this.point(this.token, true);
  }

  tokensOfAttempts() {
    const { ends } = this.read;
    return this.response.attempts.map((attempt) => ({ from: firstAfter(ends, attempt.start), to: Math.min(ends.length, firstAfter(ends, attempt.end - 1) + 1), band: band(attempt.score) }));
  }

  pointed(event) {
    const span = event.target.closest("[data-token]");
    if (span && this.read) this.point(Number(span.dataset.token));
  }

  /** Go so many tokens on. */
  step(by) {
    if (!this.read) return;
    const count = this.read.ends.length;
    this.point(Math.max(0, Math.min(count - 1, (this.token ?? 0) + by)));
    const [span] = this.spans[this.token];
    if (span) span.scrollIntoView({ block: "nearest" });
  }

  point(token, quiet = false) {
    if (!this.read || token === undefined || !this.read.ends.length) return;
    for (const span of this.spans[this.token] || []) span.classList.remove("v-here");
    this.token = token;
    for (const span of this.spans[token]) span.classList.add("v-here");
    const { ends, values, restart } = this.read;
    const words = line(this.response.text.slice(token ? ends[token - 1] : 0, ends[token]), 40);
    const every = this.data.units();
    const unit = this.units[0];
    const where = token < restart ? "before the restart" : "from the restart on";
    const place = this.read.kind === "episode" ? ", " + where : "";
    const value = short(values[unit][token]) || "0";
    this.said.replaceChildren("Token ", make("b", {}, String(token + 1)), " of " + ends.length + " ", make("q", {}, make("bdi", { class: "v-quoted" }, words)), ": ", make("b", { class: "v-now" }, value), make("span", { class: "v-muted" }, place));
    this.slider.setAttribute("aria-valuenow", token + 1);
    this.slider.setAttribute("aria-valuetext", "token " + (token + 1) + " of " + ends.length + ", “" + words.trim() + "”, " + line(every[unit].name, 60) + " " + value + place);
    this.legend.querySelectorAll(".v-value").forEach((node, i) => (node.textContent = short(values[this.units[i]][token]) || "0"));
    this.chart.point(token);
    if (!quiet && this.view.touched) this.view.touched(this);
  }
}

/** The first token that ends after a character. */
function firstAfter(ends, character) {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] <= character) low = middle + 1;
    else high = middle;
  }
  return low;
}
