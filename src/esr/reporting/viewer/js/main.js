// The viewer: what the reader asks for (state) on the one side, list and trials on the other.

const NARROW = matchMedia("(max-width: 820px)");

class Viewer {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.state = fromHash(location.hash) || { ...DEFAULTS };
    this.turn = 0;
    this.waits = 0;
    this.hits = null;
    const find = (name) => root.querySelector(name);
    this.form = find(".v-filters");
    this.count = find(".v-count");
    this.view = find(".v-view");
    this.tools = { compare: find("[name=with]"), shade: find("[name=shade]"), add: find("[name=add]") };
    this.help = find(".v-help");
    this.search = new Search(data, (share) => this.say("Reading the responses: " + Math.round(100 * share) + " %"));
    this.list = new List(data, find(".v-list"), (trial, open) => this.choose(trial, open));
    this.panes = [...root.querySelectorAll(".v-pane")].map((box, side) => new Episode(data, box, side));
    this.units = data.units();
    this.fill();
    this.wire();
  }

  // ---- the controls

  fill() {
    const { data, form } = this;
    const option = (value, text) => make("option", { value }, text);
    form.elements.condition.append(...data.conditions.map((name) => option(name, line(name, 80))));
    const named = data.directions.map(([id, label]) => [id, line(label || "no label", 60) + " · " + line(id, 40)]);
    named.sort((a, b) => (a[1].toLowerCase() < b[1].toLowerCase() ? -1 : 1));
    form.elements.direction.append(...named.map(([id, text]) => option(id, text)));
    const prompts = new Map();
    for (const [number, text] of data.prompts) if (!prompts.has(number)) prompts.set(number, text);
    const byNumber = [...prompts].sort((a, b) => a[0] - b[0]);
    form.elements.prompt.append(...byNumber.map(([number, text]) => option(number, number + ": " + line(text, 70))));
    this.root.querySelector(".v-has-readings").hidden = !this.units.length;
    for (const group of [true, false]) {
      const units = this.units.map((unit, place) => [unit, place]).filter(([unit]) => unit.group === group);
      if (!units.length) continue;
      for (const select of [this.tools.shade, this.tools.add]) {
        select.append(make("optgroup", { label: group ? "Means" : "Latents" }, units.map(([unit, place]) => option(place, line(unit.name, 70)))));
      }
    }
    if (data.of > data.count) {
      this.root.querySelector(".v-left-out").textContent =
        plural(data.count, "trial") + " of " + data.of.toLocaleString("en") + " are in this file: whole cells of direction, prompt and seed, chosen by their hash.";
    }
  }

  /** The form as the state has it. */
  sync() {
    for (const name of [...FILTERS, "sort"]) this.form.elements[name].value = this.state[name];
    this.form.elements.down.setAttribute("aria-pressed", String(Boolean(this.state.down)));
    const inUse = FILTERS.filter((name) => name !== "q" && this.state[name] !== "").length;
    this.root.querySelector(".v-in-use").textContent = inUse ? " (" + inUse + ")" : "";
    this.root.querySelector(".v-clear").hidden = !(inUse || this.state.q);
  }

  /** What the form says otherwise than the state: typing in one field must not lose what was typed in another. */
  filledIn() {
    const said = [...FILTERS, "sort"].map((name) => [name, this.form.elements[name].value]);
    return Object.fromEntries(said.filter(([name, value]) => value !== this.state[name]));
  }

  wire() {
    const { form } = this;
    form.addEventListener("submit", (event) => event.preventDefault());
    let waiting = 0;
    form.addEventListener("input", (event) => {
      if (!(event.target.name in DEFAULTS)) return;
      clearTimeout(waiting);
      const typed = event.target.type === "search" || event.target.type === "number";
      waiting = setTimeout(() => this.change(this.filledIn()), typed ? 60 : 0);
    });
    form.elements.down.addEventListener("click", () => this.change({ ...this.filledIn(), down: this.state.down ? "" : "1" }));
    this.root.querySelector(".v-clear").addEventListener("click", () => {
      this.change(Object.fromEntries(FILTERS.map((name) => [name, ""])));
      form.elements.q.focus();
    });
    this.tools.compare.addEventListener("change", () => this.change({ with: this.tools.compare.value }));
    this.tools.shade.addEventListener("change", () => this.change({ shade: this.units[this.tools.shade.value].id }));
    this.tools.add.addEventListener("change", () => {
      this.setLines([...this.chosen().slice(1), Number(this.tools.add.value)]);
      this.tools.add.value = "";
    });
    const act = (name, what) => this.root.querySelectorAll("[data-act=" + name + "]").forEach((node) => node.addEventListener("click", what));
    act("back", () => this.back());
    act("next", () => this.list.move(1));
    act("previous", () => this.list.move(-1));
    act("help", () => this.help.showModal());
    act("close-help", () => this.help.close());
    window.addEventListener("hashchange", () => {
      const state = fromHash(location.hash);
      if (state) this.adopt(state, true);
    });
    NARROW.addEventListener("change", () => this.layout());
    this.wireKeys();
  }

  wireKeys() {
    const token = (by) => (event) => {
      const pane = this.active();
      if (!pane) return false;
      pane.step(event.shiftKey ? 10 * by : by);
    };
    const shade = (by) => () => {
      if (!this.active()) return false;
      const place = (this.chosen()[0] + by + this.units.length) % this.units.length;
      this.change({ shade: this.units[place].id });
    };
    const keys = new Keys(this.root, {
      "/": () => {
        this.form.elements.q.focus();
        this.form.elements.q.select();
      },
      "?": () => this.help.showModal(),
      j: () => this.list.move(1),
      k: () => this.list.move(-1),
      c: () => this.nextPartner(),
      ArrowLeft: token(-1),
      ArrowRight: token(1),
      "[": shade(-1),
      "]": shade(1),
      Escape: () => this.escape(),
    });
    this.help.querySelector("[name=single]").addEventListener("change", (event) => (keys.on = event.target.checked));
    listen(this.list.box, {
      ArrowDown: () => this.list.move(1),
      ArrowUp: () => this.list.move(-1),
      PageDown: () => this.list.move(this.list.page),
      PageUp: () => this.list.move(-this.list.page),
      Home: () => this.list.move(-Infinity),
      End: () => this.list.move(Infinity),
      Enter: () => this.list.trial >= 0 && this.choose(this.list.trial, true, true),
    });
    for (const pane of this.panes) {
      pane.box.addEventListener("keydown", (event) => {
        if (!event.target.matches("[role=slider]")) return;
        const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        pane.step(by);
      });
    }
  }

  escape() {
    if (this.state.with) this.change({ with: "" });
    else if (this.root.contains(document.activeElement) && document.activeElement.matches("input, select")) this.list.box.focus();
    else if (NARROW.matches && this.root.classList.contains("v-open")) this.back();
    else return false;
    return true;
  }

  /** While something is awaited the page says so, for assistive technology and for whoever measures. */
  async busy(work) {
    this.waits++;
    this.root.dataset.busy = "yes";
    this.root.querySelector(".v-main").setAttribute("aria-busy", "true");
    try {
      return await work();
    } finally {
      if (--this.waits === 0) {
        delete this.root.dataset.busy;
        this.root.querySelector(".v-main").removeAttribute("aria-busy");
      }
    }
  }

  // ---- the state

  /** Take over a whole state, from an address. */
  adopt(state, moved) {
    const searched = state.q !== this.state.q;
    this.state = state;
    this.apply(searched).then(() => {
      const trial = this.data.byKey.get(state.trial);
      if (trial !== undefined) this.open(trial);
      else if (state.trial) this.say("The trial of this link is not in this report.");
      if (trial !== undefined) this.root.querySelector(".v-main").scrollIntoView();
      else if (moved) this.root.scrollIntoView();
    });
  }

  /** Some of it changed, by the reader's hand. */
  change(some) {
    const before = this.state;
    this.state = { ...before, ...some };
    this.remember();
    const names = Object.keys(some);
    if (names.some((name) => FILTERS.includes(name) || ["sort", "down"].includes(name))) this.apply("q" in some);
    else this.refresh(names);
  }

  remember() {
    history.replaceState(null, "", toHash(this.state));
  }

  /** Filter and sort anew. */
  apply(searched) {
    return this.busy(() => this.filtered(searched));
  }

  async filtered(searched) {
    const turn = ++this.turn;
    this.sync();
    if (searched) {
      const hits = await this.search.find(this.state.q, () => turn !== this.turn);
      if (turn !== this.turn) return;
      this.hits = hits;
    }
    const trials = selected(this.data, this.state, this.hits);
    this.list.show(trials);
    this.list.box.classList.toggle("v-hidden", !trials.length);
    this.root.querySelector(".v-none").hidden = trials.length > 0;
    this.say(trials.length === this.data.count ? plural(trials.length, "trial") : plural(trials.length, "trial") + " of " + this.data.count.toLocaleString("en"));
    if (this.list.trial < 0 && trials.length && !this.state.trial) this.open(trials[0], false);
    this.root.dataset.turn = String(turn);
  }

  say(words) {
    this.count.textContent = words;
  }

  // ---- trials

  /** The reader chose a trial. */
  choose(trial, open, focus = false) {
    this.state = { ...this.state, trial: this.data.columns.key[trial] };
    this.remember();
    this.open(trial, open || this.root.classList.contains("v-open"));
    if (focus) this.view.focus();
  }

  open(trial, open = true) {
    this.root.classList.toggle("v-open", open);
    this.list.select(trial);
    this.view.scrollTop = 0;
    this.offer(trial);
    this.refresh(["trial", "with"]);
    if (open && NARROW.matches) this.view.scrollIntoView();
  }

  back() {
    this.root.classList.remove("v-open");
    this.list.render();
    this.list.reveal();
    this.list.box.focus();
    this.root.scrollIntoView();
  }

  /** Conditions that share the trial's cell, its control first. */
  partners(trial) {
    const { data } = this;
    const control = data.controls[data.columns.condition[trial]];
    const others = data.partners(trial);
    const rank = (other) => (data.columns.condition[other] === control ? 0 : 1);
    return others.sort((a, b) => rank(a) - rank(b) || a - b);
  }

  offer(trial) {
    const { data } = this;
    const names = new Map();
    for (const other of this.partners(trial)) {
      const name = data.condition(other);
      const score = data.columns.last[other];
      if (!names.has(name) && name !== data.condition(trial)) names.set(name, line(name, 50) + (score === null ? " (unscored)" : " (score " + short(score) + ")"));
    }
    if (this.state.with && !names.has(this.state.with)) names.set(this.state.with, line(this.state.with, 50) + " (none of this cell)");
    this.names = [...names.keys()];
    const first = make("option", { value: "" }, this.names.length ? "nothing" : "nothing: no other condition has this cell");
    this.tools.compare.replaceChildren(first, ...[...names].map(([name, text]) => make("option", { value: name }, text)));
  }

  nextPartner() {
    if (!this.names || !this.names.length) return this.say("No other condition has this cell.");
    const here = this.names.indexOf(this.state.with);
    this.change({ with: here + 1 < this.names.length ? this.names[here + 1] : "" });
  }

  /** Units shown: the shaded one first. By default the groups' means. */
  chosen() {
    const place = (id) => this.units.findIndex((unit) => unit.id === id);
    const shade = Math.max(0, place(this.state.shade));
    const lines = this.state.lines ? this.state.lines.split(" ").map(place) : this.units.map((unit, i) => (unit.group ? i : -1));
    return [shade, ...new Set(lines.filter((one) => one >= 0 && one !== shade))].slice(0, LINES);
  }

  setLines(units) {
    this.change({ lines: units.map((unit) => this.units[unit].id).join(" ") || "-" });
  }

  active() {
    return this.touched && this.touched.read ? this.touched : this.panes.find((pane) => pane.read);
  }

  /** Show what the state names; `names` of it changed. */
  refresh(names) {
    return this.busy(() => this.shown(names));
  }

  async shown(names) {
    const trial = this.list.trial;
    if (trial < 0) return;
    this.tools.compare.value = this.state.with;
    const view = { units: this.units.length ? this.chosen() : [], remove: (unit) => this.setLines(this.chosen().slice(1).filter((one) => one !== unit)), touched: (pane) => (this.touched = pane) };
    if (this.units.length) this.tools.shade.value = view.units[0];
    this.layout();
    if (names.includes("shade") || names.includes("lines")) {
      for (const pane of this.panes) {
        if (!pane.read) continue;
        pane.view = view;
        pane.shade(view.units);
      }
      this.level();
      return;
    }
    const [left, right] = this.panes;
    const other = this.state.with ? this.partners(trial).find((one) => this.data.condition(one) === this.state.with) : undefined;
    const shown = [left.trial === trial && left.read !== undefined && !names.includes("trial") ? true : left.show(trial, view)];
    if (!this.state.with) right.clear();
    else if (other === undefined) {
      right.clear();
      right.box.append(make("p", { class: "v-note" }, "No trial of this direction, prompt and seed under ", make("bdi", {}, line(this.state.with, 80)), "."));
    } else shown.push(right.show(other, view));
    this.root.classList.toggle("v-comparing", Boolean(this.state.with));
    right.box.hidden = !this.state.with;
    await Promise.all(shown);
    this.level();
    this.root.querySelector(".v-shading").hidden = !this.panes.some((pane) => pane.read);
    this.view.setAttribute("aria-label", "Trial " + this.data.columns.key[trial].slice(0, 12));
    this.root.dataset.shown = this.data.columns.key[trial] + (other === undefined ? "" : " " + this.data.columns.key[other]);
  }

  /** Charts side by side have one scale. */
  level() {
    const charts = this.panes.filter((pane) => pane.read).map((pane) => pane.chart);
    for (const chart of charts) chart.scale(Math.max(...charts.map((one) => one.highest)));
  }

  layout() {
    this.root.querySelector(".v-more").open ||= !NARROW.matches;
  }
}

async function start() {
  const root = document.getElementById("episodes");
  const app = root.querySelector(".v-app");
  const loading = root.querySelector(".v-loading");
  loading.hidden = false;
  try {
    if (!window.DecompressionStream) throw new Error("this browser cannot inflate data (DecompressionStream); a newer one can");
    const data = await Data.open();
    app.hidden = false;
    const viewer = new Viewer(root, data);
    viewer.layout();
    viewer.adopt(viewer.state, false);
    if (viewer.state.q) viewer.apply(true);
    loading.remove();
    root.dataset.ready = "yes";
    await viewer.search.prepare();
    root.dataset.searchable = "yes";
  } catch (error) {
    loading.hidden = false;
    loading.textContent = "The viewer could not start: " + line(error.message, 300);
    throw error;
  }
}

start();
