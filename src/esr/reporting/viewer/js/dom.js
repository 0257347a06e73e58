// Making elements. Untrusted text becomes text nodes, never markup; what a reader could not see of it is written out.

const UNSEEN = /(?:(?![\n\t])[\p{C}\p{Zl}\p{Zp}])+/gu;
const ON_A_LINE = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** An element: attributes by name; a function is a listener; null, undefined and false leave an attribute out. */
function make(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** The same in the namespace of SVG. */
function draw(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** A character that shows nothing, or moves others about, as its escape: \x1b, \u202e, \U000e0041. */
function escaped(character) {
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  if (character === "\r") return "\\r";
  const code = character.codePointAt(0);
  const hex = code.toString(16);
  return code < 256 ? "\\x" + hex.padStart(2, "0") : code < 65536 ? "\\u" + hex.padStart(4, "0") : "\\U" + hex.padStart(8, "0");
}

/** Text on one line, of at most so many characters, with nothing unseen in it: for names, labels and attributes. */
function line(text, most = 200) {
  const cut = text.length > most;
  const shown = (cut ? text.slice(0, most) : text).replace(ON_A_LINE, escaped);
  return cut ? shown + "… [+" + (text.length - most).toLocaleString("en") + " characters]" : shown;
}

/** Nodes for running text: line feeds and tabs stay, runs of other unseen characters are set apart. */
function seen(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) nodes.push(text.slice(from, match.index));
    nodes.push(make("span", { class: "v-unseen" }, Array.from(match[0], escaped).join("")));
    from = match.index + match[0].length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

/** A number in a few digits; nothing for none. */
function short(value, digits = 3) {
  if (value === null || value === undefined) return "";
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

/** With its sign. */
function signed(value) {
  return (value > 0 ? "+" : value < 0 ? "−" : "±") + short(Math.abs(value));
}

function plural(count, one, many = one + "s") {
  return count.toLocaleString("en") + " " + (count === 1 ? one : many);
}

/** The third of the scale that a score lies in. */
function band(score) {
  return score === null ? "none" : score < 34 ? "low" : score > 66 ? "high" : "middle";
}
