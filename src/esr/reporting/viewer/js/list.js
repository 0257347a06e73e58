// The list of trials: only the rows in view exist, so its length costs nothing.

const ROW = 64; // pixels, as in the style sheet

class List {
  constructor(data, box, choose) {
    this.data = data;
    this.box = box;
    this.choose = choose;
    this.trials = [];
    this.trial = -1;
    this.rows = new Map();
    this.field = make("div", { role: "presentation", class: "v-field" });
    box.append(this.field);
    box.addEventListener("scroll", () => this.render(), { passive: true });
    new ResizeObserver(() => this.render()).observe(box);
    box.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.choose(this.trials[Number(row.dataset.place)], true);
    });
  }

  show(trials) {
    this.trials = trials;
    this.field.style.height = trials.length * ROW + "px";
    this.clear();
    this.box.scrollTop = 0;
    this.render();
    this.reveal();
  }

  /** Mark a trial and bring it into view. */
  select(trial) {
    this.trial = trial;
    this.reveal();
    this.clear();
    this.render();
  }

  get place() {
    return this.trials.indexOf(this.trial);
  }

  /** Go so many rows on; from nowhere to the first. */
  move(by) {
    if (!this.trials.length) return;
    const here = this.place;
    const place = here < 0 ? 0 : Math.max(0, Math.min(this.trials.length - 1, here + by));
    this.choose(this.trials[place], false);
  }

  get page() {
    return Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
  }

  reveal() {
    const place = this.place;
    if (place < 0 || !this.box.clientHeight) return;
    const top = place * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
  }

  clear() {
    this.field.replaceChildren();
    this.rows.clear();
  }

  render() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 4);
    const last = Math.min(this.trials.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + 4);
    for (const [place, row] of this.rows) {
      if (place < first || place >= last) {
        row.remove();
        this.rows.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (!this.rows.has(place)) {
        const row = this.row(place);
        this.rows.set(place, row);
        this.field.append(row);
      }
    }
    const here = this.rows.get(this.place);
    if (here) this.box.setAttribute("aria-activedescendant", here.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const { data } = this;
    const trial = this.trials[place];
    const { label, id } = data.direction(trial);
    const { first, last, restarts } = data.columns;
    const outcome = data.outcome(trial);
    const scores = make("span", { class: "v-scores" });
    if (outcome === "unscored") scores.append(make("span", { class: "v-tag" }, "unscored"));
    else {
      scores.append(make("b", { class: "v-" + band(first[trial]) }, short(first[trial])));
      if (last[trial] !== null && data.columns.attempts[trial] > 1) {
        scores.append(make("span", { "aria-hidden": "true" }, " → "), make("span", { class: "v-aside" }, " to "), make("b", { class: "v-" + band(last[trial]) }, short(last[trial])));
      }
    }
    const notes = [];
    if (restarts[trial] > 0) notes.push(plural(restarts[trial], "restart"));
    if (data.flag(trial, "degraded")) notes.push("degraded");
    if (data.readingOf.has(trial)) notes.push("tokens read");
    const row = make(
      "div",
      { role: "option", id: "v-row-" + place, class: "v-row", "data-place": place, "data-key": data.columns.key[trial], "aria-selected": String(trial === this.trial), "aria-setsize": this.trials.length, "aria-posinset": place + 1 },
      make("span", { class: "v-row-top" }, make("bdi", { class: "v-name" }, line(label || id, 80)), scores),
      make("span", { class: "v-row-under" }, make("bdi", { class: "v-name" }, line(data.prompt(trial).text, 120))),
      make("span", { class: "v-row-under" }, make("bdi", { class: "v-name" }, line(data.condition(trial), 60)), make("span", { class: "v-notes" }, notes.join(", "))),
    );
    row.style.transform = "translateY(" + place * ROW + "px)";
    return row;
  }
}
