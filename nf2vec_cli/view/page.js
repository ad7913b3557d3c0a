// The page of `nf2vec view`: a map of the embeddings, and the shape of the object pointed at.
// Whatever comes from the store is put in as text, never as markup.
"use strict";

const el = (id) => document.getElementById(id);
const state = document.documentElement.dataset; // what tests read: points, shown, selected, errors
state.errors = "0";
window.addEventListener("error", () => { state.errors = String(Number(state.errors) + 1); });

const data = JSON.parse(el("data").textContent);
const shapes = el("shapes").textContent.split("\n");
const total = data.id.length;
const every = Array.from({ length: total }, (_, i) => i);

// colours that are told apart side by side; from there on, hues by the golden angle
const PALETTE = [
  "#3b78c9", "#e5812f", "#3a9d52", "#c9423f", "#8561b8", "#8d5b43", "#d96fb3", "#a5a12a",
  "#27a5b4", "#1d3f75", "#f2b866", "#8bcb86", "#f0928e", "#93bfe8", "#c2a9de", "#7b1f47",
  "#0f6a5b", "#c59f8c", "#5c6b1d", "#f3b1d3", "#86d5d9", "#4d3a86",
];
const colours = data.classNames.map((name, i) => {
  if (name === "none") return "#98a1ab";
  return PALETTE[i] || `hsl(${(i * 137.5) % 360}, 55%, ${[48, 62, 36][i % 3]}%)`;
});
const colourOf = (i) => colours[data.class[i]];

function make(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the 3D part: one WebGL context draws all pictures, canvases show copies of them

const studio = (() => {
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true });
  } catch {
    return null; // no WebGL: the map works all the same
  }
  const scene = new THREE.Scene();
  const sun = new THREE.DirectionalLight("white", 2.2);
  scene.add(new THREE.HemisphereLight("white", "#8d97a5", 1.5), sun);
  const kept = new Map();

  function bodyOf(i) { // decoded when it is first looked at
    if (kept.has(i)) return kept.get(i);
    const bytes = Uint8Array.from(atob(shapes[i]), (c) => c.charCodeAt(0));
    const numbers = new Uint16Array(bytes.buffer);
    const [vertices, faces] = numbers;
    const ends = 2 + 3 * vertices;
    const place = Float32Array.from(numbers.subarray(2, ends), (n) => (n / 65535) * 2 - 1);
    let form = new THREE.BufferGeometry();
    form.setAttribute("position", new THREE.BufferAttribute(place, 3));
    form.setIndex(new THREE.BufferAttribute(numbers.slice(ends, ends + 3 * faces), 1));
    const tints = numbers.subarray(ends + 3 * faces); // of radiance: a colour for each vertex
    const lit = tints.length > 0;
    if (lit) form.setAttribute("color", new THREE.BufferAttribute(linear(tints), 3));
    form = THREE.toCreasedNormals(form, lit ? 1.2 : 0.7);
    const body = new THREE.Mesh(
      form, new THREE.MeshLambertMaterial({ side: THREE.DoubleSide, vertexColors: lit }),
    );
    if (!lit) body.material.color.set(colourOf(i)).lerp(new THREE.Color("white"), 0.25);
    form.computeBoundingSphere();
    kept.set(i, body);
    return body;
  }

  function linear(tints) { // 5, 6 and 5 bits of sRGB, as the light that they stand for
    const found = new Float32Array(3 * tints.length);
    tints.forEach((tint, k) => {
      [tint >> 11, (tint >> 5 & 63) / 63 * 31, tint & 31].forEach((value, channel) => {
        found[3 * k + channel] = (value / 31) ** 2.2;
      });
    });
    return found;
  }

  function camera() {
    const made = new THREE.PerspectiveCamera(32, 1, 0.01, 50);
    made.position.set(0.62, 0.5, 0.9);
    return made;
  }

  function aim(view, body) { // the same direction, so far off that the object fills the picture
    const { center, radius } = body.geometry.boundingSphere;
    const way = view.position.clone().sub(view.target || new THREE.Vector3()).normalize();
    view.target = center.clone();
    view.position.copy(center).addScaledVector(way, Math.max(radius, 0.05) / Math.sin(0.26));
    view.lookAt(center);
  }

  function paint(canvas, view, body) {
    const ratio = window.devicePixelRatio || 1;
    const side = Math.max(1, Math.round(canvas.clientWidth * ratio));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    renderer.setSize(side, side, false);
    sun.position.copy(view.position).add(new THREE.Vector3(0.6, 1.2, 0));
    scene.add(body);
    renderer.render(scene, view);
    scene.remove(body);
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    pen.drawImage(renderer.domElement, 0, 0);
  }

  return { bodyOf, camera, aim, paint };
})();

const NO_SHAPE = studio ? "nothing is left of it at this resolution" : "3D needs WebGL";

function sayOn(canvas, text) {
  canvas.width = canvas.height = Math.max(1, canvas.clientWidth);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#6b7683";
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillText(text, canvas.width / 2, canvas.height / 2);
}

const stage = studio && (() => { // the large picture, which can be turned
  const view = studio.camera();
  const turn = new THREE.OrbitControls(view, el("shape"));
  turn.enablePan = false;
  let body = null;
  turn.addEventListener("change", () => body && studio.paint(el("shape"), view, body));
  return {
    show(i) {
      body = i === null ? null : studio.bodyOf(i);
      if (!body) return;
      studio.aim(view, body);
      turn.target.copy(view.target);
      turn.update();
      studio.paint(el("shape"), view, body);
    },
    again() { if (body) studio.paint(el("shape"), view, body); },
  };
})();

const pictureOf = (i) => data.pictures?.[i] && `data:image/jpeg;base64,${data.pictures[i]}`;

function thumbnail(canvas, i) {
  if (!studio || !shapes[i]) return sayOn(canvas, studio ? "no shape" : "");
  const view = studio.camera();
  studio.aim(view, studio.bodyOf(i));
  studio.paint(canvas, view, studio.bodyOf(i));
}

// ---- one object: pointed at, or kept by a click

let pointed = null, chosen = null, onStage = null;

function present() {
  const i = pointed ?? chosen ?? onStage;
  el("hint").hidden = i !== null;
  el("object").hidden = i === null;
  if (i === null) delete state.selected;
  if (i === null || i === onStage) return;
  onStage = i;
  state.selected = data.id[i];
  el("name").textContent = data.id[i];
  const error = data.error[i];
  const facts = {
    Class: data.classNames[data.class[i]],
    Split: data.splitNames[data.split[i]],
  };
  if (!data.psnr) facts["Fit error"] = error === null ? "not fitted" : error.toPrecision(3);
  else facts.PSNR = data.psnr[i] === null ? "unknown" : `${data.psnr[i].toFixed(1)} dB`;
  el("picture").hidden = !pictureOf(i);
  if (pictureOf(i)) el("picture").src = pictureOf(i);
  el("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]),
  );
  if (stage && shapes[i]) stage.show(i);
  else { stage?.show(null); sayOn(el("shape"), NO_SHAPE); }
  el("neighbours").replaceChildren(...data.neighbours[i].map((other, rank) => {
    const button = make("button");
    button.title = data.id[other];
    const label = make("span", "text", data.id[other].split("/").pop());
    const picture = make(pictureOf(other) ? "img" : "canvas");
    if (pictureOf(other)) picture.src = pictureOf(other);
    button.append(picture, label);
    const named = `${data.classNames[data.class[other]]} · ${data.cosines[i][rank].toFixed(2)}`;
    button.append(make("span", "number", named));
    button.addEventListener("click", () => choose(other));
    return button;
  }));
  data.neighbours[i].forEach((other, rank) => {
    if (!pictureOf(other)) thumbnail(el("neighbours").children[rank].firstChild, other);
  });
}

function point(i) {
  if (i === pointed) return;
  pointed = i;
  present();
  drawMap();
}

function choose(i) {
  chosen = i;
  pointed = null;
  onStage = i === null ? null : onStage;
  location.hash = i === null ? "" : `id=${encodeURIComponent(data.id[i])}`;
  present();
  drawMap();
}

function followLink() {
  let wanted = null;
  try {
    const found = /^#id=(.*)$/.exec(location.hash);
    wanted = found && decodeURIComponent(found[1]);
  } catch { /* a broken link selects nothing */ }
  const i = wanted === null ? -1 : data.id.indexOf(wanted);
  if (i >= 0 && i !== chosen) choose(i);
  if (!location.hash.slice(1) && chosen !== null) choose(null);
  if (wanted !== null && i < 0) el("hint").textContent = `There is no object ${wanted} on this page.`;
}

// ---- filters: nothing picked means everything

const picked = { class: new Set(), split: new Set() };
let searched = "";
let shown = every.map(() => true);

function filter() {
  const word = searched.toLowerCase();
  shown = every.map((i) =>
    ["class", "split"].every((by) => !picked[by].size || picked[by].has(data[by][i]))
    && data.id[i].toLowerCase().includes(word));
  const left = shown.filter(Boolean).length;
  state.shown = String(left);
  el("count").textContent = left === total ? `${total} objects` : `${left} of ${total} objects`;
  drawMap();
}

function legend(by) {
  const box = el(by);
  data[`${by}Names`].forEach((name, k) => {
    const button = make("button");
    button.setAttribute("aria-pressed", "false");
    if (by === "class") {
      const dot = make("span", "dot");
      dot.style.background = colours[k];
      button.append(dot);
    }
    button.append(make("span", "text", name));
    button.append(make("span", "number", data[by].filter((one) => one === k).length));
    button.addEventListener("click", () => {
      if (!picked[by].delete(k)) picked[by].add(k);
      button.setAttribute("aria-pressed", String(picked[by].has(k)));
      box.classList.toggle("some", picked[by].size > 0);
      filter();
    });
    box.append(button);
  });
}

function search(text) {
  searched = text.trim();
  const found = searched ? every.filter((i) => data.id[i].toLowerCase().includes(searched.toLowerCase())) : [];
  el("found").replaceChildren(...found.slice(0, 12).map((i) => {
    const button = make("button");
    button.title = data.id[i];
    button.append(make("span", "text", data.id[i]));
    button.addEventListener("click", () => { el("search").value = ""; search(""); choose(i); });
    return button;
  }));
  filter();
}

// ---- the map

const map = el("map");
const eye = { zoom: 1, x: 0.5, y: 0.5 }; // the place in the middle
const NEAR = 12; // pixels from a dot that count as on it

function screen() {
  const { clientWidth: w, clientHeight: h } = map;
  const unit = Math.max(1, Math.min(w, h) - 48) * eye.zoom;
  return { w, h, unit, at: (i) => [
    w / 2 + (data.place[i][0] - eye.x) * unit, h / 2 - (data.place[i][1] - eye.y) * unit,
  ] };
}

function drawMap() {
  const { w, h, at } = screen();
  const ratio = window.devicePixelRatio || 1;
  if (map.width !== Math.round(w * ratio) || map.height !== Math.round(h * ratio)) {
    map.width = Math.round(w * ratio);
    map.height = Math.round(h * ratio);
  }
  const pen = map.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, w, h);
  const size = Math.min(7, Math.max(2.5, 130 / Math.sqrt(total)) * Math.sqrt(Math.sqrt(eye.zoom)));
  const dot = (i, radius) => {
    const [x, y] = at(i);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
  };
  let drawn = 0;
  pen.fillStyle = "#e4e8ed";
  for (const i of every) if (!shown[i]) { dot(i, size * 0.8); pen.fill(); drawn += 1; }
  pen.globalAlpha = 0.8;
  for (const i of every) {
    if (shown[i]) { pen.fillStyle = colourOf(i); dot(i, size); pen.fill(); drawn += 1; }
  }
  pen.globalAlpha = 1;
  const mark = pointed ?? chosen;
  if (mark !== null) {
    pen.strokeStyle = "#26303b55";
    for (const other of data.neighbours[mark]) {
      pen.beginPath();
      pen.moveTo(...at(mark));
      pen.lineTo(...at(other));
      pen.stroke();
    }
    for (const [i, more] of [...data.neighbours[mark].map((other) => [other, 1]), [mark, 3]]) {
      pen.fillStyle = colourOf(i);
      pen.strokeStyle = "#26303b";
      pen.lineWidth = more === 3 ? 2 : 1;
      dot(i, size + more);
      pen.fill();
      pen.stroke();
    }
  }
  state.points = String(drawn);
}

function under(event) {
  const box = map.getBoundingClientRect();
  const { at } = screen();
  let best = null, least = NEAR ** 2;
  for (const i of every) {
    if (!shown[i]) continue;
    const [x, y] = at(i);
    const far = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
    if (far <= least) { best = i; least = far; }
  }
  return best;
}

function tip(i) {
  const box = el("tip");
  box.hidden = i === null;
  if (i === null) return;
  box.textContent = data.id[i];
  const { w, at } = screen();
  const [x, y] = at(i);
  box.style.left = `${Math.max(4, Math.min(x + 12, w - box.offsetWidth - 6))}px`;
  box.style.top = `${Math.max(4, y - 34)}px`;
}

let grip = null;
map.addEventListener("pointerdown", (event) => {
  grip = { x: event.clientX, y: event.clientY, moved: false };
  map.setPointerCapture(event.pointerId);
});
map.addEventListener("pointermove", (event) => {
  if (grip) {
    const [dx, dy] = [event.clientX - grip.x, event.clientY - grip.y];
    if (!grip.moved && Math.hypot(dx, dy) < 4) return;
    const { unit } = screen();
    eye.x -= dx / unit;
    eye.y += dy / unit;
    grip = { x: event.clientX, y: event.clientY, moved: true };
    tip(null);
    drawMap();
    return;
  }
  const i = under(event);
  map.classList.toggle("over", i !== null);
  tip(i);
  point(i);
});
map.addEventListener("pointerup", (event) => {
  if (grip && !grip.moved) {
    const i = under(event);
    if (i !== null) choose(i);
  }
  grip = null;
});
map.addEventListener("pointerleave", () => { tip(null); point(null); });
map.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = map.getBoundingClientRect();
  const { w, h, unit } = screen();
  const zoom = Math.min(60, Math.max(0.5, eye.zoom * Math.exp(-event.deltaY * 0.0015)));
  const [dx, dy] = [event.clientX - box.left - w / 2, event.clientY - box.top - h / 2];
  const change = 1 / unit - eye.zoom / (unit * zoom); // what is under the pointer stays there
  eye.x += dx * change;
  eye.y -= dy * change;
  eye.zoom = zoom;
  drawMap();
}, { passive: false });
map.addEventListener("dblclick", () => { Object.assign(eye, { zoom: 1, x: 0.5, y: 0.5 }); drawMap(); });

// ---- begin

el("store").textContent = data.store;
el("about").textContent = [
  `${total} objects`, `${data.field} fields`, `${data.mapName} of embeddings by encoder ${data.encoder}`,
  `shapes from ${data.from}`,
].join(" · ");
legend("split");
legend("class");
filter();
el("search").addEventListener("input", (event) => search(event.target.value));
el("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") el("found").firstChild?.click();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") choose(null); });
window.addEventListener("hashchange", followLink);
new ResizeObserver(() => { drawMap(); stage?.again(); }).observe(el("plane"));
followLink();
requestAnimationFrame(() => setTimeout(() => { state.drawnMs = performance.now().toFixed(0); }));
