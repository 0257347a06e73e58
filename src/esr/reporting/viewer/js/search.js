// Full text: every word (or "quoted phrase") must occur in a trial's response, prompt, label, condition or key.
// Responses are inflated once, while the page has nothing else to do, and kept in lower case, a string per block.

const PRELOADED = 600e6; // characters kept at most; a larger study is read again at each search

class Search {
  constructor(data, progress) {
    this.data = data;
    this.progress = progress;
    this.hay = new Array(data.starts.length);
    this.kept = 0;
    this.results = new Map();
    this.hurry = null;
  }

  /** Read all blocks, one in each idle moment, or at once as soon as somebody searches. */
  async prepare() {
    for (let block = 0; block < this.hay.length && this.kept < PRELOADED; block++) {
      if (!this.hurry) await idle();
      await this.block(block);
    }
  }

  get prepared() {
    let ready = 0;
    for (const one of this.hay) ready += one ? 1 : 0;
    return this.hay.length ? ready / this.hay.length : 1;
  }

  async block(number) {
    if (this.hay[number]) return this.hay[number];
    const records = await (await inflated("esr-texts-" + number)).json();
    const offsets = new Uint32Array(records.length + 1);
    const parts = records.map((record) => record[0].toLowerCase());
    parts.forEach((part, i) => (offsets[i + 1] = offsets[i] + part.length + 1));
    const found = { text: parts.join("\n") + "\n", offsets };
    if (this.kept < PRELOADED && !this.hay[number]) {
      this.hay[number] = found;
      this.kept += found.text.length;
    }
    return found;
  }

  /** A byte per trial, 1 where all words occur; null for an empty query. `given up` returns true to stop. */
  async find(query, givenUp) {
    const words = (query.toLowerCase().match(/"[^"]+"|[^\s"]+/g) || []).map((word) => word.replaceAll('"', ""));
    if (!words.length) return null;
    let all = null;
    this.hurry = true;
    for (const word of words) {
      const hits = this.results.get(word) || (await this.word(word, givenUp));
      if (!hits) return null;
      this.results.set(word, hits);
      if (this.results.size > 20) this.results.delete(this.results.keys().next().value);
      all = all ? all.map((hit, i) => hit & hits[i]) : hits;
    }
    return all;
  }

  async word(word, givenUp) {
    const { data } = this;
    const hits = new Uint8Array(data.count);
    const has = (text) => text.toLowerCase().includes(word);
    const conditions = data.conditions.map(has);
    const directions = data.directions.map(([id, label]) => has(id) || has(label));
    const prompts = data.prompts.map(([, text]) => has(text));
    const reasons = data.reasons.map(has);
    const { condition, direction, prompt, reason, key } = data.columns;
    for (let i = 0; i < data.count; i++) {
      hits[i] =
        conditions[condition[i]] || directions[direction[i]] || prompts[prompt[i]] || (reason[i] >= 0 && reasons[reason[i]]) || key[i].startsWith(word);
    }
    let since = performance.now();
    for (let number = 0; number < this.hay.length; number++) {
      const { text, offsets } = this.hay[number] || (await this.block(number));
      const first = data.starts[number];
      let item = 0;
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, offsets[item + 1])) {
        while (offsets[item + 1] <= at) item++;
        hits[first + item] = 1;
      }
      if (performance.now() - since > 50) {
        this.progress(number / this.hay.length);
        await new Promise((go) => setTimeout(go));
        if (givenUp()) return null;
        since = performance.now();
      }
    }
    return hits;
  }
}

function idle() {
  return new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go, { timeout: 500 }) : setTimeout(go, 20)));
}
