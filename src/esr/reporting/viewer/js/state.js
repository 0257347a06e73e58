// What is shown, as the part of the address behind #: a link holds the trial, the filters and the order.

const DEFAULTS = {
  q: "", condition: "", direction: "", prompt: "", attempts: "", from: "", to: "", degraded: "", unscored: "", read: "",
  sort: "study", down: "", trial: "", with: "", shade: "", lines: "",
};
const FILTERS = ["q", "condition", "direction", "prompt", "attempts", "from", "to", "degraded", "unscored", "read"];

/** The state in an address, or null where its # is an ordinary anchor. */
function fromHash(hash) {
  if (!hash.includes("=")) return null;
  const given = new URLSearchParams(hash.slice(1));
  const state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (given.has(name)) state[name] = given.get(name);
  for (const name of ["from", "to"]) if (!Number.isFinite(Number(state[name]))) state[name] = "";
  return state;
}

function toHash(state) {
  const said = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) if (state[name] !== usual) said.set(name, state[name]);
  return "#" + (said.toString() || "episodes");
}

/** Which trials pass the filters, in the order asked for: an array of their places. `hits`: of the search, or null. */
function selected(data, state, hits) {
  const { columns } = data;
  const condition = state.condition === "" ? -1 : data.conditions.indexOf(state.condition);
  const direction = state.direction === "" ? -1 : data.directions.findIndex(([id]) => id === state.direction);
  const prompt = state.prompt === "" ? null : Number(state.prompt);
  const from = state.from === "" ? -Infinity : Number(state.from);
  const to = state.to === "" ? Infinity : Number(state.to);
  const anyChange = state.from === "" && state.to === "";
  const degradedBit = 1 << data.flags.indexOf("degraded");
  const keep = [];
  for (let i = 0; i < data.count; i++) {
    if (hits && !hits[i]) continue;
    if (state.condition !== "" && columns.condition[i] !== condition) continue;
    if (state.direction !== "" && columns.direction[i] !== direction) continue;
    if (prompt !== null && data.prompts[columns.prompt[i]][0] !== prompt) continue;
    if (state.attempts && !hasAttempts(columns, i, state.attempts)) continue;
    const change = columns.change[i];
    if (!anyChange && (change === null || change < from || change > to)) continue;
    if (state.degraded && (columns.flags[i] & degradedBit ? "only" : "without") !== state.degraded) continue;
    if (state.unscored && (columns.reason[i] >= 0 ? "only" : "without") !== state.unscored) continue;
    if (state.read && data.readingOf.has(i) !== (state.read === "only")) continue;
    keep.push(i);
  }
  return ordered(data, keep, state);
}

function hasAttempts(columns, i, wanted) {
  if (wanted === "restart") return columns.restarts[i] > 0;
  const attempts = columns.attempts[i];
  return attempts !== null && (wanted === "3" ? attempts >= 3 : attempts === Number(wanted));
}

/** Stable; trials without a value come last either way. */
function ordered(data, keep, state) {
  const { columns } = data;
  const sign = state.down ? -1 : 1;
  const numbers = { attempts: columns.attempts, change: columns.change, first: columns.first, last: columns.last, tokens: columns.tokens, boost: columns.boost, prompt: columns.prompt.map((p) => data.prompts[p][0]) };
  if (state.sort === "direction") {
    const names = data.directions.map(([id, label]) => label.toLowerCase() + "\n" + id);
    const rank = [...names.keys()].sort((a, b) => (names[a] < names[b] ? -1 : 1));
    const placed = new Array(rank.length);
    rank.forEach((direction, place) => (placed[direction] = place));
    numbers.direction = columns.direction.map((direction) => placed[direction]);
  }
  const values = numbers[state.sort];
  if (!values) return state.down ? keep.reverse() : keep;
  return keep.sort((a, b) => {
    if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
    return sign * (values[a] - values[b]) || a - b;
  });
}
