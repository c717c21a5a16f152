"use strict";
// Draws the trees of the page as treemaps. Names are an image's, and hostile: they are only ever set as text.
(() => {
  const trees = JSON.parse(document.getElementById("trees").textContent);
  const merged = trees.length - 1;
  const map = document.getElementById("map");
  const trail = document.getElementById("trail");
  // Units of the map, whose sides are as 5 to 3.
  const WIDTH = 1000, HEIGHT = 600, LABEL = 15, MOST = 4000;
  let left = 0;

  const node = ([name, bytes, fate, layer, below]) => ({ name, bytes, fate, layer, below });

  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let unit = 0;
    while (bytes >= 999.5 && unit + 1 < units.length) { bytes /= 1000; unit += 1; }
    return (unit === 0 ? bytes : Number(bytes.toPrecision(3))) + units[unit];
  };

  // Squarified treemap (Bruls, Huizing, van Wijk): rows are filled while that makes their tiles squarer.
  const squarify = (nodes, whole, box, place) => {
    const sorted = nodes.slice().sort((a, b) => b.bytes - a.bytes);
    let { x, y, w, h } = box;
    const scale = w * h / whole;
    for (let at = 0; at < sorted.length && w > 0 && h > 0;) {
      const side = Math.min(w, h);
      let sum = 0, worst = Infinity, end = at;
      while (end < sorted.length) {
        const next = sum + sorted[end].bytes * scale;
        const most = sorted[at].bytes * scale, least = sorted[end].bytes * scale;
        const ratio = Math.max(side * side * most / (next * next), next * next / (side * side * least));
        if (ratio > worst) break;
        worst = ratio; sum = next; end += 1;
      }
      const thick = sum / side;
      let along = 0;
      for (; at < end; at += 1) {
        const long = sorted[at].bytes * scale / thick;
        place(sorted[at], w >= h ? { x, y: y + along, w: thick, h: long } : { x: x + along, y, w: long, h: thick });
        along += long;
      }
      if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
    }
  };

  const tile = (one, box, path, tree) => {
    const dir = one.below.length > 0;
    const element = document.createElement(dir ? "button" : "div");
    element.className = "tile";
    if (dir) {
      element.classList.add("dir");
      element.addEventListener("click", () => go(tree, path));
    } else if (tree === merged) {
      element.classList.add("layer");
      element.style.setProperty("--hue", String((210 + one.layer * 137.5) % 360));
    } else if (one.fate) {
      element.classList.add(one.fate);
    }
    const origin = tree === merged ? `layer ${one.layer + 1}` : one.fate;
    element.title = `/${path.join("/")}\n${size(one.bytes)}${origin && !dir ? ", " + origin : ""}`;
    element.style.left = 100 * box.x / WIDTH + "%";
    element.style.top = 100 * box.y / HEIGHT + "%";
    element.style.width = 100 * box.w / WIDTH + "%";
    element.style.height = 100 * box.h / HEIGHT + "%";
    if (box.w > 24 && box.h > 12) {
      const label = dir ? element.appendChild(document.createElement("span")) : element;
      label.textContent = `${one.name} ${size(one.bytes)}`;
    }
    map.append(element);
  };

  const draw = (one, box, path, tree) => {
    const below = one.below.map(node);
    const own = one.bytes - below.reduce((sum, other) => sum + other.bytes, 0);
    if (own > 0) below.push({ name: "(deleted)", bytes: own, fate: one.fate, layer: one.layer, below: [] });
    squarify(below, one.bytes, box, (other, place) => {
      if (place.w < 2 || place.h < 2 || left === 0) return;
      left -= 1;
      const inside = path.concat(other.name);
      tile(other, place, inside, tree);
      const room = { x: place.x + 2, y: place.y + LABEL, w: place.w - 4, h: place.h - LABEL - 2 };
      if (other.below.length > 0 && room.w > 12 && room.h > 12) draw(other, room, inside, tree);
    });
  };

  const find = (tree, path) => {
    let here = node(trees[tree]);
    const found = [];
    for (const name of path) {
      const next = here.below.map(node).find((other) => other.name === name && other.below.length > 0);
      if (!next) break;
      found.push(name);
      here = next;
    }
    return [here, found];
  };

  const link = (text, act) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.addEventListener("click", act);
    return button;
  };

  const show = () => {
    const parts = location.hash.slice(1).split("/").map((part) => {
      try { return decodeURIComponent(part); } catch { return part; }
    });
    const number = Number(parts[0]);
    const tree = Number.isInteger(number) && number > 0 && number <= merged ? number - 1 : merged;
    const [here, path] = find(tree, parts.slice(1));
    left = MOST;
    map.replaceChildren();
    draw(here, { x: 0, y: 0, w: WIDTH, h: HEIGHT }, path, tree);
    const title = tree === merged ? "merged image" : `layer ${tree + 1}`;
    trail.replaceChildren(link(title, () => go(tree, [])));
    path.forEach((name, at) => trail.append(" / ", link(name, () => go(tree, path.slice(0, at + 1)))));
    trail.append(` — ${size(here.bytes)}`);
    document.querySelectorAll("#layers tr[data-tree]").forEach((row) => {
      row.classList.toggle("chosen", Number(row.dataset.tree) === tree);
    });
  };

  const go = (tree, path) => {
    location.hash = [tree === merged ? "merged" : tree + 1, ...path.map(encodeURIComponent)].join("/");
  };

  document.querySelectorAll("#layers tr[data-tree] button").forEach((button) => {
    button.addEventListener("click", () => go(Number(button.closest("tr").dataset.tree), []));
  });
  window.addEventListener("hashchange", show);
  show();
})();
