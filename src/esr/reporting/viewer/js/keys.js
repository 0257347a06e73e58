// The keyboard. Single keys can be switched off (help dialog), and never act while something is typed or chosen.

class Keys {
  /** `acts`: what each key does, by `KeyboardEvent.key`. They work while the viewer has the focus, or nothing has it
   *  and the viewer is in sight. */
  constructor(root, acts) {
    this.on = true;
    this.inSight = false;
    new IntersectionObserver(([entry]) => (this.inSight = entry.isIntersecting)).observe(root);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      const focus = document.activeElement;
      const nowhere = !focus || focus === document.body;
      if (!(nowhere ? this.inSight : root.contains(focus))) return;
      const typing = focus && focus.matches("input, select, textarea");
      if (event.key !== "Escape" && (typing || !this.on)) return;
      const act = acts[event.key];
      if (act && act(event) !== false) event.preventDefault();
    });
  }
}

/** Arrow keys and the like on one element: `acts` by key, each told the event. */
function listen(node, acts) {
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
}
