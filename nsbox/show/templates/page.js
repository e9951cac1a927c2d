"use strict";
// Letters are looked at by pointing or by arrow keys; the picture itself needs no script.
(() => {
  const picture = document.getElementById("picture");
  const detail = document.getElementById("detail");
  const find = document.getElementById("find");
  const empty = [...detail.childNodes].map((node) => node.cloneNode(true));
  let about = {};
  let held = null;

  const cells = () => [...picture.querySelectorAll(".matrix tr.proc:not([hidden])")]
    .map((row) => [...row.querySelectorAll("td.c")]);

  function element(name, text, parent) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function ready() {
    about = JSON.parse(document.getElementById("about").textContent);
    picture.querySelectorAll(".matrix td.c").forEach((cell) => { cell.tabIndex = -1; });
    const first = picture.querySelector(".matrix td.c");
    if (first) first.tabIndex = 0;
    filter();
  }

  // ---- one namespace ----

  function choose(id) {
    picture.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
    const row = about[id];
    document.body.classList.toggle("looking", Boolean(row));
    if (!row) {
      detail.replaceChildren(...empty.map((node) => node.cloneNode(true)));
      return;
    }
    picture.querySelectorAll(`[data-ns="${id}"]`).forEach((one) => one.classList.add("chosen"));
    detail.replaceChildren();
    const title = element("h2", undefined, detail);
    const mark = element("span", row.letter, title);
    mark.className = `ns kept ${row.shape} h${row.hue}`;
    element("span", `${row.kind}:[${id}]`, title);
    element("p", row.name, detail);
    const list = element("dl", undefined, detail);
    for (const [name, value] of row.facts) {
      element("dt", name, list);
      const place = element("dd", undefined, list);
      if (!Array.isArray(value)) { place.textContent = value; continue; }
      const items = element("ul", undefined, place);
      value.forEach((text) => element("li", text, items));
    }
  }

  const idOf = (node) => node.closest?.("[data-ns]")?.dataset.ns ?? node.querySelector?.("[data-ns]")?.dataset.ns ?? null;

  picture.addEventListener("mouseover", (event) => {
    const mark = event.target.closest("[data-ns], td.c");
    if (mark && !held) choose(idOf(mark));
  });
  picture.addEventListener("mouseleave", () => { if (!held) choose(null); });
  picture.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-ns], td.c");
    held = mark && idOf(mark) !== held ? idOf(mark) : null;
    choose(held);
  });
  picture.addEventListener("focusin", (event) => {
    if (event.target.matches("td.c") && !held) choose(idOf(event.target));
  });

  // ---- keys ----

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  function go(from, down, right) {
    const rows = cells();
    const row = rows.findIndex((line) => line.includes(from));
    const column = rows[row].indexOf(from);
    const to = rows[row + down]?.[column + right];
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.key === "Escape") {
      held = null;
      choose(null);
      if (at === find) { find.value = ""; filter(); }
    } else if (event.key === "/" && at !== find) {
      event.preventDefault();
      find.focus();
    } else if (at.matches?.("td.c") && STEPS[event.key]) {
      event.preventDefault();
      go(at, ...STEPS[event.key]);
    } else if (at.matches?.("td.c") && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      held = held === idOf(at) ? null : idOf(at);
      choose(held ?? idOf(at));
    }
  });

  // ---- find, light and dark ----

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    picture.querySelectorAll(".matrix tbody").forEach((group) => {
      let shown = 0;
      group.querySelectorAll("tr.proc").forEach((row) => {
        row.hidden = !words.every((word) => row.dataset.find.toLowerCase().includes(word));
        shown += !row.hidden;
      });
      group.hidden = !shown;
    });
  }
  find.addEventListener("input", filter);

  const theme = document.getElementById("theme");
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
  theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    theme.setAttribute("aria-pressed", isDark());
  });

  // ---- live ----

  async function renew() {
    const answer = await fetch("picture", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const known = new Map([...picture.querySelectorAll("tr.proc")].map((row) => [row.dataset.key, row.innerHTML]));
    const rows = cells();
    const at = document.activeElement;
    const row = rows.findIndex((line) => line.includes(at));
    const column = row < 0 ? -1 : rows[row].indexOf(at);
    const open = [...picture.querySelectorAll("details")].map((one) => one.open);
    picture.replaceChildren(...fresh.getElementById("picture").childNodes);
    document.getElementById("counts").textContent = fresh.getElementById("counts").textContent;
    picture.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? false; });
    ready();
    picture.querySelectorAll("tr.proc").forEach((one) => {
      one.classList.toggle("flash", known.get(one.dataset.key) !== one.innerHTML && known.size > 0);
    });
    if (held && !about[held]) held = null;
    if (column >= 0) cells()[Math.min(row, cells().length - 1)]?.[column]?.focus();
    else choose(held);
  }

  const head = document.querySelector("header");
  const measure = () => document.documentElement.style.setProperty("--head", `${head.offsetHeight}px`);
  window.addEventListener("resize", measure);
  measure();

  ready();
  if (document.body.dataset.live) {
    const live = document.getElementById("live");
    const events = new EventSource("events");
    const say = (good) => { live.textContent = good ? "live" : "lost, tries again"; live.classList.toggle("lost", !good); };
    events.onopen = () => say(true);
    events.onerror = () => say(false);
    events.onmessage = () => renew().catch(() => say(false));
  }
})();
