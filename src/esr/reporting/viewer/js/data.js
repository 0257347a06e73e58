// The data in the page: an index of all trials, and blocks of responses and readings, inflated when they are needed.

async function inflated(name) {
  let holder = document.getElementById(name);
  if (!holder && document.readyState === "loading") {
    await new Promise((go) => document.addEventListener("DOMContentLoaded", go, { once: true }));
    holder = document.getElementById(name);
  }
  if (!holder) throw new Error("this page is incomplete: it lacks " + name);
  const text = holder.textContent;
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
  else {
    const binary = atob(text);
    bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}

/** The block that an item is in, by the first item of each. */
function blockOf(starts, item) {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= item) low = middle;
    else high = middle - 1;
  }
  return low;
}

class Data {
  static async open() {
    return new Data(await (await inflated("esr-index")).json());
  }

  constructor(index) {
    Object.assign(this, index);
    this.columns = index.trials;
    this.count = this.columns.key.length;
    this.byKey = new Map(this.columns.key.map((key, i) => [key, i]));
    this.cells = new Map();
    this.columns.cell.forEach((cell, i) => {
      if (this.cells.has(cell)) this.cells.get(cell).push(i);
      else this.cells.set(cell, [i]);
    });
    this.readingOf = new Map((index.readings ? index.readings.of : []).map((entry, i) => [entry[0], i]));
    this.recent = new Map();
  }

  flag(trial, name) {
    return Boolean((this.columns.flags[trial] >> this.flags.indexOf(name)) & 1);
  }

  condition(trial) {
    return this.conditions[this.columns.condition[trial]];
  }

  direction(trial) {
    const [id, label, threshold] = this.directions[this.columns.direction[trial]];
    return { id, label, threshold };
  }

  prompt(trial) {
    const [number, text] = this.prompts[this.columns.prompt[trial]];
    return { number, text };
  }

  /** Why a trial has no score; empty when it has. */
  reason(trial) {
    const place = this.columns.reason[trial];
    return place < 0 ? "" : this.reasons[place] || "no reason given";
  }

  /** In a word, for badges and lists. */
  outcome(trial) {
    if (this.columns.reason[trial] >= 0) return "unscored";
    if (this.flag(trial, "improved")) return "improved";
    return this.flag(trial, "multi_attempt") ? "not improved" : "single";
  }

  /** Other trials of the same direction, prompt and seed. */
  partners(trial) {
    return this.cells.get(this.columns.cell[trial]).filter((other) => other !== trial);
  }

  /** The records of a block of responses; the last few asked for are kept. */
  async texts(block) {
    if (!this.recent.has(block)) {
      this.recent.set(block, inflated("esr-texts-" + block).then((response) => response.json()));
      if (this.recent.size > 6) this.recent.delete(this.recent.keys().next().value);
    }
    return this.recent.get(block);
  }

  async response(trial) {
    const block = blockOf(this.starts, trial);
    const records = await this.texts(block);
    const [text, given, judgedFrom, source, thirds, attempts] = records[trial - this.starts[block]];
    const named = attempts.map(([start, end, score, kind, quote]) => ({ start, end, score, kind, quote }));
    return { text, given, judgedFrom, source, thirds, attempts: named };
  }

  /** What was read on a trial's tokens, or null: values by unit (a group's mean or a latent), in absolute units. */
  async reading(trial) {
    const place = this.readingOf.get(trial);
    if (place === undefined) return null;
    const { starts, of, kinds, maxima, groups } = this.readings;
    const block = blockOf(starts, place);
    const buffer = await (await inflated("esr-readings-" + block)).arrayBuffer();
    let offset = 0;
    for (let before = starts[block]; before < place; before++) offset += of[before][5].length * maxima.length;
    const [, kind, restart, spoken, end, steps] = of[place];
    const numbers = new DataView(buffer);
    const latents = maxima.map((top, latent) =>
      steps.map((_, token) => (numbers.getUint16(2 * (offset + latent * steps.length + token), true) / 65535) * top),
    );
    const means = groups.map(([, members]) =>
      steps.map((_, token) => members.reduce((sum, latent) => sum + latents[latent][token], 0) / members.length),
    );
    let last = 0;
    const ends = steps.map((step) => (last += step));
    return { kind: kinds[kind], restart, spoken, end, ends, values: [...means, ...latents] };
  }

  /** What can be shaded: the groups' means, then every latent; with the highest value over all readings. */
  units() {
    if (!this.readings) return [];
    const { latents, maxima, groups } = this.readings;
    return [
      ...groups.map(([name, members, top], i) => ({ id: "g" + i, name: name + ", mean of " + members.length, top, group: true })),
      ...latents.map(([number, label], i) => ({ id: "l" + number, name: number + (label ? ": " + label : ""), top: maxima[i], group: false })),
    ];
  }
}
